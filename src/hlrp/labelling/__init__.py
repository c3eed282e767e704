"""Label large data: shards of frames, labelled one after the other or on many machines, then merged."""

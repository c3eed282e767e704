"""Metrics of a quantizer of which nothing was measured, as a start for tests that fill in some."""

from hlrp.measure.action_probe import NO_PROBE
from hlrp.measure.code_usage import NO_CODE_USAGE
from hlrp.measure.laq_quality import LAQQuality
from hlrp.measure.motion import ReversalMetrics, StillMetrics
from hlrp.measure.reconstruction import NO_PICTURES
from hlrp.measure.transfer import NO_TRANSFER

UNMEASURED = LAQQuality(
    reversal=ReversalMetrics(reversal_changed_codes=None, reversal_correlation=None),
    still=StillMetrics(still_modal_share=None, still_entropy_bits=None),
    codes=NO_CODE_USAGE,
    transfer=NO_TRANSFER,
    pictures=NO_PICTURES,
    probe=NO_PROBE,
    clips=7,
    picture_clips=7,
    episodes=2,
)

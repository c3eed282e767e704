"""What the demo shows at its end: curves, figures, videos, one page and one terminal summary."""

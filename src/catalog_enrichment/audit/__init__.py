"""People in the loop: samples of what was written, a page to judge them on, and what their verdicts change."""

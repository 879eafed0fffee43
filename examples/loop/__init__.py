"""The pieces of ``whole_loop.py``: processes, the video, the operator and the report."""

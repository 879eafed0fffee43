"""INT8 ranges: observe a graph on pictures, choose ranges, write the INT8 graphs, prove what it cost.

No torch here; a graph comes in as ONNX.
"""

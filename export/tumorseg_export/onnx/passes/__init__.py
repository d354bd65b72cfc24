"""Graph passes: small changes of an ONNX graph that leave what it computes as it is, up to float rounding.

A pass is called with a model and gives another one; the first is not changed. None is applied unless a
target asks for it: what a pass gains depends on the backend (docs/performance.md).
"""

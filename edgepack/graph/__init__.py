"""Authoring ONNX graphs: weights, layers and signal blocks over onnxscript's GraphBuilder."""

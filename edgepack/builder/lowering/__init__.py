"""ONNX graphs as LiteRT files: an operator is a small function in a table, channels last.

LiteRT has no ONNX importer, and a TensorFlow function in between would cost 1.8 GB of packages and
a protobuf limit of 2 GB on weights; so operators are written straight into the FlatBuffer.
"""

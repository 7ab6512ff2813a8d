"""The networks: weights and dimensions in, one ONNX graph out, written to read like the paper."""

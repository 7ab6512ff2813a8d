"""What ONNX operators become, a module for each kind of them."""

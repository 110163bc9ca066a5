"""Weights and networks in other frameworks' formats: ONNX, safetensors, PyTorch, MXNet."""

"""Dreaming on: the executor of schedules, the dream as a world, the same passes in ONNX Runtime."""

"""Exports a measurement to other tools: TensorBoard, Weights & Biases, MLflow, FiftyOne."""

"""A measurement in other people's tools: TensorBoard, Weights & Biases, MLflow, FiftyOne."""

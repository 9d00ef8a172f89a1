"""One training run. Knows nothing of studies, Optuna, MLflow or tables."""

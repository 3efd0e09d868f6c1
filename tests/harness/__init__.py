"""What tests, the demo and benches start: a real Kubernetes, images from local files, an engine, models."""

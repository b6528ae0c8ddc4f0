"""Concurrency: registry, versions, batching, the device thread. Knows neither HTTP nor TensorFlow."""

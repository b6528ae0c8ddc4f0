"""What scores; the only room that imports TensorFlow, in `device`, `cosine_graph` and `two_stage`."""

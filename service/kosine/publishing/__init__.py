"""How vectors and ids get to where kosine serves them from: immutable files, and a manifest last."""

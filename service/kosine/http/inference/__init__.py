"""The Open Inference Protocol v2, for clients of KServe and Triton: an index is a model of one input.

Nothing is answered here that `/indexes/{name}/cos` would not answer: the same checks, queue and versions.
"""

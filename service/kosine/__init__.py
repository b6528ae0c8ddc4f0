"""kosine: exact cosine top-k over named matrices, served over HTTP and swapped when their files change."""

__version__ = "0.1.0"

__all__ = ("__version__",)

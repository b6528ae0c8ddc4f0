"""The operator: CosineIndex and CosineServer resources become Deployments that run kosine."""

from __future__ import annotations

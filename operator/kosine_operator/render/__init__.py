"""A pool as Kubernetes objects: a pure function, the only one that says what should exist.

Two rules hold by construction. What may change while pods run is in the ConfigMap and nowhere else; what
needs new pods is in the Deployment and nowhere else: settings of the process are arguments of its container.
So no change of data or configuration ever touches a pod template, and no checksum annotation is needed.

Every object is labelled `kosine.dev/pool=<key.label>` but for the Services of indexes, which outlive a move
and are collected with their index. Whatever else has that label and is not in `Rendered.manifests` is to be
deleted, unless `Rendered.refused` names something that is not optional: then what runs is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine_operator.render.configuration import config_map, configuration_of
from kosine_operator.render.deployment import deployment
from kosine_operator.render.exposure import exposure
from kosine_operator.render.model import Capabilities, Defaults, Live, Manifest, Rendered
from kosine_operator.render.pod_template import pod_template
from kosine_operator.render.scaling import scaling
from kosine_operator.render.services import services

if TYPE_CHECKING:
    from kosine_operator.pools import Pool

__all__ = ("Capabilities", "Defaults", "Live", "Manifest", "Rendered", "render")


def render(pool: Pool, *, defaults: Defaults, capabilities: Capabilities, live: Live) -> Rendered:
    """Everything that `pool` needs, in the order to apply it. Deterministic: equal arguments, equal bytes."""
    configuration = configuration_of(pool, live)
    template = pod_template(pool, configuration, defaults)
    scaled, scaling_refusals = scaling(pool, capabilities)
    exposed, exposure_refusals = exposure(pool, defaults, capabilities)
    manifests = [
        config_map(pool, configuration),
        *services(pool),
        # A template that is refused must not take the pods away that run.
        *([] if template.refused else [deployment(pool, template.manifest, live)]),
        *scaled,
        *exposed,
    ]
    return Rendered(
        manifests=tuple(manifests),
        configuration_hash=configuration.hash,
        refused=(*template.refused, *configuration.refused, *scaling_refusals, *exposure_refusals),
    )

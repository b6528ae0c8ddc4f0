"""A container's environment variables and its command, as the API defines them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.kit.control_plane.kubelet.resources import ConfigMapSource, SecretSource
from tests.kit.control_plane.kubelet.sources import MissingReference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.kit.control_plane.kubelet.resources import Container, EnvVar, EnvVarSource, KeySelector
    from tests.kit.control_plane.kubelet.sources import Sources

__all__ = ("command", "environment", "expanded")

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
"""The Service that the API server makes for itself."""


async def environment(container: Container, sources: Sources, image: Mapping[str, str]) -> dict[str, str]:
    """The image's variables, then envFrom's, then env's, each stronger than those before."""
    values = {**image, **IN_CLUSTER, "HOSTNAME": sources.pod.metadata.name}
    for many in container.env_from:
        files: dict[str, bytes] = {}
        if many.config_map_ref is not None:
            files |= await sources.config_map(many.config_map_ref)
        if many.secret_ref is not None:
            files |= await sources.secret(many.secret_ref)
        values |= {many.prefix + key: value.decode() for key, value in files.items()}
    for one in container.env:
        value = await _value(one, values, sources)
        if value is not None:
            values[one.name] = value
    return values


def command(container: Container, entrypoint: Sequence[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """`command` replaces the image's entrypoint, `args` follow; $(NAME) in both is a variable's value."""
    words = (*container.command, *container.args)
    start = () if container.command else tuple(entrypoint)
    return (*start, *(expanded(word, variables) for word in words))


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """$(NAME) becomes the variable's value, or stays where there is none; $$ is a dollar."""
    return re.sub(
        r"\$\$|\$\(([\w.-]+)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )


async def _value(variable: EnvVar, values: Mapping[str, str], sources: Sources) -> str | None:
    source = variable.value_from
    if source is None:
        return expanded(variable.value, values)
    if source.field_ref is not None:
        return sources.pod_field(source.field_ref.field_path)
    if source.resource_field_ref is not None:
        return "1"
    return await _key(source, sources)


async def _key(source: EnvVarSource, sources: Sources) -> str | None:
    selector: KeySelector
    if source.config_map_key_ref is not None:
        selector = source.config_map_key_ref
        data = await sources.config_map(ConfigMapSource(name=selector.name, optional=selector.optional))
    elif source.secret_key_ref is not None:
        selector = source.secret_key_ref
        data = await sources.secret(SecretSource(name=selector.name, optional=selector.optional))
    else:
        return None
    if selector.key in data:
        return data[selector.key].decode()
    if selector.optional:
        return None
    raise MissingReference(f"couldn't find key {selector.key} in {selector.name}")

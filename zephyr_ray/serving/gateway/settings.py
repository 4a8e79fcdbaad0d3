"""The settings of the endpoint's applications. Nothing here loads Ray: a wrong command line is refused at once."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

from zephyr_ray.serving.gateway.request_models import Limits
from zephyr_ray.serving.model_spec import ServedModel


class GatewaySettings(BaseModel):
    """What the gateway is told when it is deployed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: dict[str, list[str]] = Field(min_length=1)
    """The model applications by name, each with the names of its adapters."""
    feedback: str | None = None
    """Folder or URI of people's choices; None refuses them."""
    keys: str | None = None
    """File of API keys' hashes (`zephyr-ray keys`), besides those in ZEPHYR_API_KEYS."""
    open: bool = False
    """Let everyone in. Only with an HTTP host on loopback."""
    limits: Limits = Limits()
    """What one request may ask for."""
    log_text: bool = False
    """Write the bodies of requests to the access log. Off: no text of a message is ever logged."""
    replicas: int = Field(1, ge=1)
    """Processes of this gateway."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Ray node labels that their nodes must carry. An autoscaler never takes away a node that has one of them, however
    little it does: on a cluster that goes down to its head, choose the head's."""

    @model_validator(mode="after")
    def _check(self) -> "GatewaySettings":
        names = [name for app, adapters in self.models.items() for name in (app, *adapters)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"models: the name {name} is there twice")
        return self


class ModelApplication(ServedModel):
    """The arguments of an application that holds one model."""

    keys: str | None = None
    """File of API keys' hashes, the gateway's."""
    open: bool = False
    """Let every caller in, as the gateway does."""

"""What earlier versions wrote into a run's folder, in today's form."""

from typing import Any

NETWORKS = {"linear": "Linear", "mlp": "MLP", "conv": "Conv"}


def to_today(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a run as today's conf/ would compose it.

    0.1 had the optimizer's and the scheduler's keys in the model, the shapes in the data, one logger by name
    and the network's family by name. A colorizer's code had to tell the lightness too, and nothing was
    fine-tuned.
    """
    if not isinstance(config.get("model"), dict):
        return config
    if "callbacks" not in config:
        config = _from_0_1(config)
    if str(config["model"].get("_target_")).endswith(".ColorizationAutoencoder"):
        config = {**config, "model": {"keep_lightness": False, **config["model"]}}
    if isinstance(config.get("evaluation"), dict):
        fine_tuning = {"fine_tuning_epochs": 30, "fine_tuning_activation": False}
        config = {**config, "evaluation": {**fine_tuning, **config["evaluation"]}}
    return config


def _from_0_1(config: dict[str, Any]) -> dict[str, Any]:
    model, data, network, logger = (
        _copy(config.get(name)) for name in ("model", "data", "network", "logger")
    )
    lr, beta2, decay, warmup = (model.pop(key, None) for key in ("lr", "beta2", "weight_decay", "warmup"))
    for shape in ("input_shape", "target_shape"):
        model.pop(shape, None)
        data.pop(shape, None)
    if (data.get("input"), data.get("target")) == ("gray", "gray") and "CIFAR" not in str(
        data.get("_target_")
    ):
        data |= {"input": None, "target": None}  # as the images are
    if (name := network.pop("name", None)) in NETWORKS:
        network = {"_target_": f"autoencoders.networks.{NETWORKS[name]}", **network}
    model |= {"network": "${network}", "optimizer": "${optimizer}", "scheduler": "${scheduler}"}
    optimizer = {
        "_target_": "torch.optim.AdamW", "_partial_": True,
        "lr": lr, "betas": [0.9, beta2], "weight_decay": decay, "fused": True,
    }  # fmt: skip
    scheduler = {
        "_target_": "autoencoders.schedulers.warmup_cosine", "_partial_": True, "warmup": warmup,
    }  # fmt: skip
    loggers = {}
    if logger.pop("name", None) == "wandb":
        loggers = {"wandb": {"_target_": "autoencoders.loggers.Wandb", **logger}}
    return {
        **config,
        "model": model,
        "data": {
            **data,
            "size": None,
            "augment_until": 1.0,
            "only": None,
            "without": None,
            "supervision": "clean",
            "blind_spots": 0.1,
            "corruption": "${corruption}",
        },
        "network": network,
        "logger": loggers,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "callbacks": {},
        "init": None,
    }


def _copy(node: Any) -> dict[str, Any]:
    return dict(node) if isinstance(node, dict) else {}

"""The configuration as the admin listener shows it: without secrets."""

from sidecar.config.settings import Config


def masked_config(config: Config) -> dict[str, object]:
    """The configuration as it works now. Secrets appear by id only: their values have no way into this."""
    return {
        "file": config.file,
        "listen": str(config.listen),
        "admin": str(config.admin),
        "admin_token": "<secret>" if config.admin_token is not None else None,
        "ip_ranges": {"refresh": config.ip_ranges.refresh, "sources": dict(config.ip_ranges.sources)},
        "client_ip_header": config.client_header.name,
        "proxy_protocol": config.proxy_protocol,
        "trusted_proxies": [*config.trusted_proxies.cidrs, *(["unix:"] if config.trust_unix else [])],
        "limits": {key: getattr(config.limits, key) for key in config.limits.__slots__}
        | {"refusals": str(config.limits.refusals) if config.limits.refusals is not None else None},
        "timeouts": {key: getattr(config.timeouts, key) for key in config.timeouts.__slots__},
        "drain": config.drain,
        "tracing": {"endpoint": config.tracing.endpoint, "sample": config.tracing.sample} if config.tracing else None,
        "replay_store": str(config.replay_store or "memory"),
        "workers": config.workers,
        "log": {key: getattr(config.log, key) for key in config.log.__slots__},
        "routes": [
            {
                "name": route.name,
                "path": route.pattern,
                "upstream": str(route.upstream),
                "verify": "open" if route.open else route.preset or ("scheme" if route.verifier else "none"),
                "secrets": [{"id": secret_id, "value": "<secret>"} for secret_id in route.secret_ids],
                "allow": list(route.allow.cidrs) if route.allow is not None else None,
                "methods": sorted(route.methods),
                "mode": "shadow" if route.shadow else "enforce",
                "body": route.body_limit,
                "sign": "standard-webhooks" if route.upstream_signer is not None else None,
                "replay": route.replay.seconds if route.replay is not None else None,
                "reject": {"status": route.rejection.status, "body": route.rejection.body.decode()},
            }
            for route in config.routes.routes
        ],
        "delivery_test": {
            "accounts": [
                {"id": account.id, "api_key": "<secret>", "webhook_url": account.webhook_url or None}
                for account in config.accounts
            ]
        },
        "warnings": [str(warning) for warning in config.warnings],
    }

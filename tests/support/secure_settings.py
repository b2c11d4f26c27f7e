"""The settings by which broker and worker ask everybody who they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdc_migrator.stack import kafka, ports
from cdc_migrator.stack.layout import Layout
from tests.support.certificates import ELSEWHERE, Authority, key_store, trust_store

if TYPE_CHECKING:
    from tests.support.secure_stack import SecureStack

_STORE = "keystore"
_JAAS = "org.apache.kafka.common.security"


def broker_settings(
    stack: SecureStack, authority: Authority, layout: Layout, controller: int
) -> dict[str, str | int]:
    """TLS on every listener; passwords, certificates, and certificates that nobody should take."""
    at = {name: f"{name}://{ports.HOST}:{port}" for name, port in stack.listeners.items()}
    plain = f"{_JAAS}.plain.PlainLoginModule required"
    plain += "".join(f' user_{u}="{stack.passwords[u]}"' for u in ("admin", "cdcm")) + ";"
    made = {
        **kafka.broker_settings(layout, stack.listeners["SASL"], controller),
        "listeners": ",".join([*at.values(), f"CONTROLLER://{ports.HOST}:{controller}"]),
        "advertised.listeners": ",".join(at.values()),
        "listener.security.protocol.map": "SASL:SASL_SSL,MTLS:SSL,ELSEWHERE:SSL,EXPIRED:SSL,"
        "CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "MTLS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(authority.issue("broker").both),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(stack.authority),
        "ssl.principal.mapping.rules": "RULE:^.*CN=([A-Za-z0-9_.-]+).*$/$1/,DEFAULT",
        "listener.name.mtls.ssl.client.auth": "required",
        "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": plain,
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": (
            f"{_JAAS}.scram.ScramLoginModule required;"
        ),
        # So that a password that is changed matters soon.
        "connections.max.reauth.ms": 6000,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:broker;User:ANONYMOUS",
    }
    for listener, hosts, days in (("elsewhere", ELSEWHERE, 2), ("expired", None, 0)):
        issued = authority.issue(listener, **{"hosts": hosts} if hosts else {}, days=days)
        made[f"listener.name.{listener}.ssl.keystore.type"] = "PEM"
        made[f"listener.name.{listener}.ssl.keystore.location"] = str(issued.both)
    return made


def worker_settings(
    stack: SecureStack, authority: Authority, layout: Layout
) -> dict[str, str | int]:
    """HTTPS with a client certificate and a password; writes the files that it refers to."""
    home = layout.connect
    key_store(authority.issue("worker"), home / "worker.p12", _STORE)
    trust_store(stack.authority, home / "trust.jks", _STORE)
    (home / "credentials.properties").write_text(f"cdcm={stack.passwords['rest']}\n")
    (home / "jaas.conf").write_text(
        "KafkaConnect {\n"
        "org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule required\n"
        f'file="{home / "credentials.properties"}";\n}};\n'
    )
    login = f"{_JAAS}.scram.ScramLoginModule required username=connect"
    client = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.jaas.config": f'{login} password="{stack.passwords["connect"]}";',
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(stack.authority),
    }
    rest = {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(home / "worker.p12"),
        "ssl.keystore.password": _STORE,
        "ssl.key.password": _STORE,
        "ssl.truststore.type": "JKS",
        "ssl.truststore.location": str(home / "trust.jks"),
        "ssl.truststore.password": _STORE,
        "ssl.client.authentication": "required",
    }
    return {
        **kafka.worker_settings(layout, stack.worker_port, stack.listeners["SASL"]),
        "listeners": stack.worker_url,
        "rest.advertised.listener": "https",
        "rest.extension.classes": (
            "org.apache.kafka.connect.rest.basic.auth.extension.BasicAuthSecurityRestExtension"
        ),
        **{f"listeners.https.{key}": value for key, value in rest.items()},
        **{
            f"{kind}{key}": value
            for kind in ("", "producer.", "consumer.", "admin.")
            for key, value in client.items()
        },
    }

"""Receivers that people run: nginx, Node, PHP and Java. Each responds with the header fields that it saw, one per line.

Node, PHP and Java also check the GitHub signature with the secret in RECEIVER_SECRET, and report the result in the line
`genuine`. With TLS, nginx, Node and Java require a client certificate, and show its subject (`client`) and the requested name
(`sni`).
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key, pkcs12
from cryptography.x509 import load_pem_x509_certificate
from needs import needs
from ports import free_port
from waiting import until

#: The fields that the receivers show.
FIELDS = (
    "host", "authorization", "x-env", "x-webhook-tenant", "x-webhook-secret-id", "x-hub-signature-256",
    "x-github-encoded-secret", "x-internal-a", "x-kept",
)  # fmt: skip

NODE = """
const http = require("node:http");
const https = require("node:https");
const { readFileSync } = require("node:fs");
const { createHmac } = require("node:crypto");
const fields = process.env.FIELDS.split(" ");
const handle = (request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    const made = createHmac("sha256", process.env.RECEIVER_SECRET).update(Buffer.concat(pieces)).digest("hex");
    const lines = fields.filter((name) => name in request.headers).map((name) => `${name}: ${request.headers[name]}`);
    lines.push(`genuine: ${request.headers["x-hub-signature-256"] === "sha256=" + made}`);
    if (process.env.TLS_CERT) {
      lines.push(`client: CN=${request.socket.getPeerCertificate().subject.CN}`, `sni: ${request.socket.servername}`);
    }
    response.end(lines.join("\\n"));
  });
};
const file = (name) => readFileSync(process.env[name]);
const tls = () => ({
  cert: file("TLS_CERT"), key: file("TLS_KEY"), ca: file("TLS_CA"), requestCert: true, rejectUnauthorized: true,
});
const server = process.env.TLS_CERT ? https.createServer(tls(), handle) : http.createServer(handle);
server.listen(Number(process.env.PORT), "127.0.0.1");
"""

PHP = """<?php
$lines = [];
foreach (explode(' ', getenv('FIELDS')) as $name) {
    $value = $_SERVER['HTTP_' . strtr(strtoupper($name), '-', '_')] ?? null;
    if ($value !== null) { $lines[] = "$name: $value"; }
}
$made = 'sha256=' . hash_hmac('sha256', file_get_contents('php://input'), getenv('RECEIVER_SECRET'));
$lines[] = 'genuine: ' . (hash_equals($made, $_SERVER['HTTP_X_HUB_SIGNATURE_256'] ?? '') ? 'true' : 'false');
echo implode("\\n", $lines);
"""

JAVA = """
import com.sun.net.httpserver.HttpServer;
import com.sun.net.httpserver.HttpsConfigurator;
import com.sun.net.httpserver.HttpsExchange;
import com.sun.net.httpserver.HttpsParameters;
import com.sun.net.httpserver.HttpsServer;
import java.io.File;
import java.io.FileInputStream;
import java.net.InetSocketAddress;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.HexFormat;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.net.ssl.ExtendedSSLSession;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

public class Receiver {
    static HttpServer make(InetSocketAddress address) throws Exception {
        String store = System.getenv("TLS_STORE");
        if (store == null) return HttpServer.create(address, 0);
        char[] password = "changeit".toCharArray();
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(KeyStore.getInstance(new File(store), password), password);
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null, null);
        try (FileInputStream ca = new FileInputStream(System.getenv("TLS_CA"))) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(ca));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        HttpsServer server = HttpsServer.create(address, 0);
        server.setHttpsConfigurator(new HttpsConfigurator(context) {
            @Override
            public void configure(HttpsParameters parameters) {
                SSLParameters wanted = context.getDefaultSSLParameters();
                wanted.setNeedClientAuth(true);
                parameters.setSSLParameters(wanted);
            }
        });
        return server;
    }

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = make(new InetSocketAddress("127.0.0.1", port));
        server.createContext("/", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            StringBuilder lines = new StringBuilder();
            for (String name : System.getenv("FIELDS").split(" ")) {
                String value = exchange.getRequestHeaders().getFirst(name);
                if (value != null) lines.append(name).append(": ").append(value).append("\\n");
            }
            String made = "";
            try {
                Mac mac = Mac.getInstance("HmacSHA256");
                mac.init(new SecretKeySpec(System.getenv("RECEIVER_SECRET").getBytes(), "HmacSHA256"));
                made = "sha256=" + HexFormat.of().formatHex(mac.doFinal(body));
            } catch (Exception problem) {
                throw new IllegalStateException(problem);
            }
            lines.append("genuine: ").append(made.equals(exchange.getRequestHeaders().getFirst("x-hub-signature-256")));
            if (exchange instanceof HttpsExchange secure) {
                ExtendedSSLSession session = (ExtendedSSLSession) secure.getSSLSession();
                lines.append("\\nclient: ").append(session.getPeerPrincipal().getName());
                session.getRequestedServerNames().forEach(
                    name -> lines.append("\\nsni: ").append(new String(name.getEncoded())));
            }
            byte[] answer = lines.toString().getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
    }
}
"""

NGINX = """
daemon off; pid nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  client_max_body_size 0; keepalive_timeout 60s;
  server {{
    listen 127.0.0.1:{port} {tls};
    {more}
    location / {{ return 200 "{shown}"; }}
  }}
}}
"""
#: The fields that nginx also shows for a TLS connection.
TLS_SHOWN = (
    "sni: $ssl_server_name\\nclient: $ssl_client_s_dn\\nserial: $ssl_client_serial\\nverify: $ssl_client_verify\\n"
)


def nginx_file(directory: Path, port: int, *, tls: bool = False, more: str = "") -> Path:
    """A configuration whose server responds with the fields that it saw; `more` are directives of the server."""
    lines = [f"{name}: $http_{name.replace('-', '_')}" for name in FIELDS]
    shown = "\\n".join(lines) + "\\n" + (TLS_SHOWN if tls else "")
    file = directory / "nginx.conf"
    file.write_text(NGINX.format(port=port, tls="ssl" if tls else "", more=more, shown=shown))
    return file


class ServerTls(NamedTuple):
    """Files in PEM of a receiver with TLS, and of the authority that its clients must have."""

    cert: Path
    key: Path
    client_ca: Path

    def environment(self, directory: Path) -> dict[str, str]:
        """For Node, and as a PKCS #12 file for Java."""
        store = directory / "receiver.p12"
        key, cert = load_pem_private_key(self.key.read_bytes(), None), load_pem_x509_certificate(self.cert.read_bytes())
        assert isinstance(key, EllipticCurvePrivateKey)
        encryption = BestAvailableEncryption(b"changeit")
        store.write_bytes(pkcs12.serialize_key_and_certificates(b"receiver", key, cert, None, encryption))
        names = {"TLS_CERT": self.cert, "TLS_KEY": self.key, "TLS_CA": self.client_ca, "TLS_STORE": store}
        return {name: str(file) for name, file in names.items()}

    @property
    def directives(self) -> str:
        """For nginx."""
        return (
            f"ssl_certificate {self.cert}; ssl_certificate_key {self.key}; ssl_client_certificate {self.client_ca}; "
            "ssl_verify_client on;"
        )


@contextlib.contextmanager
def running(kind: str, directory: Path, secret: str, tls: ServerTls | None = None) -> Generator[int, None, None]:
    """A receiver of this kind: nginx, node, php or java; PHP's has no TLS. Yields its port."""
    port = free_port()
    if kind == "nginx":
        file = nginx_file(directory, port, tls=tls is not None, more=tls.directives if tls else "")
        command = [needs("nginx"), "-p", str(directory), "-c", str(file)]
    elif kind == "node":
        (directory / "receiver.js").write_text(NODE)
        command = [needs("node"), str(directory / "receiver.js")]
    elif kind == "php":
        (directory / "receiver.php").write_text(PHP)
        command = [needs("php"), "-q", "-S", f"127.0.0.1:{port}", str(directory / "receiver.php")]
    else:
        needs("javac")  # `java FILE` compiles it
        (directory / "Receiver.java").write_text(JAVA)
        command = [needs("java"), "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(directory / "Receiver.java")]
    env = os.environ | {"PORT": str(port), "FIELDS": " ".join(FIELDS), "RECEIVER_SECRET": secret}
    env |= tls.environment(directory) if tls is not None else {}
    with run(command, port, env):
        yield port


@contextlib.contextmanager
def run(
    command: list[str], port: int, env: dict[str, str] | None = None
) -> Generator[subprocess.Popen[bytes], None, None]:
    """A process that is ready once it accepts connections."""
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} ended by itself"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(answers, f"the start of {command[0]}", 30)
        yield process
    finally:
        process.terminate()
        process.wait()


def seen(body: bytes) -> dict[str, str]:
    """The fields that a receiver showed."""
    pairs = [line.split(": ", 1) for line in body.decode().splitlines() if ": " in line]
    return {name: value for name, value in pairs if value}

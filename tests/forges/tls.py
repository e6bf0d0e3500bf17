"""A forge behind TLS with an authority of its own: serves 404 to everything, on one port for each way of doing it.

Prints one line: the ports, as JSON. Ends when its standard input does.
"""
import datetime, http.server, ipaddress, json, pathlib, ssl, sys, threading, warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

warnings.simplefilter("ignore")
folder = pathlib.Path(sys.argv[1])
now = datetime.datetime.now(datetime.timezone.utc)


def issue(name, issuer, issuer_key, names, authority=False, ago=1, days=10):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = now - datetime.timedelta(days=ago)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key or key, hashes.SHA256()), key


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"message": "Not Found"}).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass


def serve(name, certificate, key, newest=None):
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + pem(certificate)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
    context.load_cert_chain(file)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


loopback = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
authority, authority_key = issue("authority", None, None, [], authority=True)
(folder / "ca.pem").write_bytes(b"# a comment before\n" + pem(authority))
good = issue("good", authority, authority_key, loopback)
ports = {
    "good": serve("good", *good),
    "tls 1.2": serve("old", *good, newest=ssl.TLSVersion.TLSv1_2),
    "tls 1.1": serve("older", *good, newest=ssl.TLSVersion.TLSv1_1),
    "another host": serve("host", *issue("host", authority, authority_key, [x509.DNSName("git.example.com")])),
    "expired": serve("expired", *issue("expired", authority, authority_key, loopback, ago=30)),
    "own word": serve("own", *issue("own", None, None, loopback)),
}
print(json.dumps(ports), flush=True)
sys.stdin.read()

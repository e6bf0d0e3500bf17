"""Opens every sealed bundle of a local world with the AWS Encryption SDK for Python: a raw AES keyring, no AWS."""

import io
import pathlib
import sqlite3
import sys
import tarfile

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import AesWrappingAlg, CreateRawAesKeyringInput

cloud = pathlib.Path(sys.argv[1])
mpl = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
keyring = mpl.create_raw_aes_keyring(
    CreateRawAesKeyringInput(
        key_namespace="isoform-local",
        key_name="bundles",
        wrapping_key=(cloud / "bundles.key").read_bytes(),
        wrapping_alg=AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
    )
)
client = aws_encryption_sdk.EncryptionSDKClient(
    commitment_policy=aws_encryption_sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
)
rows = sqlite3.connect(cloud / "cloud.db").execute(
    "select name, body from objects where name like 'bundles/%' and name not like '%.json'"
).fetchall()
assert rows, "no bundle was stored"
for name, body in rows:
    plain, header = client.decrypt(source=body, keyring=keyring)
    names = tarfile.open(fileobj=io.BytesIO(plain), mode="r:gz").getnames()
    print(name, header.encryption_context, names)

"""Opens or seals with the AWS Encryption SDK for Python under a key of KMS, at an endpoint that is given."""

import io
import sys
import tarfile

import aws_encryption_sdk
import boto3
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import CreateAwsKmsKeyringInput

task, endpoint, key, path = sys.argv[1:5]
kms = boto3.client("kms", endpoint_url=endpoint, region_name=key.split(":")[3])
mpl = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
keyring = mpl.create_aws_kms_keyring(CreateAwsKmsKeyringInput(kms_key_id=key, kms_client=kms))
client = aws_encryption_sdk.EncryptionSDKClient(
    commitment_policy=aws_encryption_sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
)
if task == "open":
    plain, header = client.decrypt(source=open(path, "rb").read(), keyring=keyring)
    names = tarfile.open(fileobj=io.BytesIO(plain), mode="r:gz").getnames()
    print(header.encryption_context, names)
else:
    sealed, _ = client.encrypt(
        source=b"sealed by the client of AWS",
        keyring=keyring,
        encryption_context={"isoform:kind": "bundle", "isoform:bundle": "b1:0"},
        algorithm=aws_encryption_sdk.Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    )
    open(path, "wb").write(sealed)

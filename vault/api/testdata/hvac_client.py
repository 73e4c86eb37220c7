"""hvac_client.py URL CA CERT KEY: the stock client for Python against a
vault of ours, over mutual TLS. Prints ok, or what was not as it expects."""

import base64
import sys

import hvac
from hvac import exceptions

url, ca, cert, key = sys.argv[1:5]


def refused(kind, ask):
    try:
        got = ask()
    except kind:
        return
    except exceptions.VaultError as e:
        raise AssertionError(f"wanted {kind.__name__}, got {type(e).__name__}: {e}") from e
    raise AssertionError(f"wanted {kind.__name__}, got {got}")


client = hvac.Client(url=url, verify=ca, cert=(cert, key))
assert client.sys.is_initialized()
assert not client.sys.is_sealed()
assert client.sys.read_health_status(method="GET")["initialized"]
assert client.sys.read_seal_status()["t"] == 3
assert client.sys.read_leader_status()["is_self"]

client.token = client.adapter.post("/v1/auth/cert/login", json={})["auth"]["client_token"]
assert client.is_authenticated()
assert client.auth.token.lookup_self()["data"]["meta"]["identity"] == "mes"
assert client.auth.token.renew_self()["auth"]["lease_duration"] > 0

kv = client.secrets.kv.v2
assert kv.create_or_update_secret(mount_point="kv", path="line1/py", secret={"user": "plc"}, cas=0)["data"]["version"] == 1
assert kv.read_secret_version(mount_point="kv", path="line1/py")["data"]["data"] == {"user": "plc"}
assert kv.create_or_update_secret(mount_point="kv", path="line1/py", secret={"user": "b"})["data"]["version"] == 2
assert kv.read_secret_version(mount_point="kv", path="line1/py", version=1)["data"]["data"] == {"user": "plc"}
assert kv.list_secrets(mount_point="kv", path="line1")["data"]["keys"] == ["py"]
assert kv.read_secret_metadata(mount_point="kv", path="line1/py")["data"]["current_version"] == 2
refused(exceptions.InvalidRequest, lambda: kv.create_or_update_secret(mount_point="kv", path="line1/py", secret={}, cas=1))
kv.delete_secret_versions(mount_point="kv", path="line1/py", versions=[2])
refused(exceptions.InvalidPath, lambda: kv.read_secret_version(mount_point="kv", path="line1/py"))
kv.undelete_secret_versions(mount_point="kv", path="line1/py", versions=[2])
assert kv.read_secret_version(mount_point="kv", path="line1/py")["data"]["data"] == {"user": "b"}
refused(exceptions.InvalidPath, lambda: kv.read_secret_version(mount_point="kv", path="line1/none"))
refused(exceptions.Forbidden, lambda: kv.read_secret_version(mount_point="kv", path="line2/x"))

transit = client.secrets.transit
text = base64.b64encode(b"line 1, recipe 7").decode()
sealed = transit.encrypt_data(name="soft", plaintext=text)["data"]["ciphertext"]
assert sealed.startswith("vault:v1:")
assert transit.decrypt_data(name="soft", ciphertext=sealed)["data"]["plaintext"] == text
assert transit.read_key(name="fwkey")["data"]["latest_version"] == 1
signature = transit.sign_data(name="fwkey", hash_input=text)["data"]["signature"]
assert transit.verify_signed_data(name="fwkey", hash_input=text, signature=signature)["data"]["valid"]
refused(exceptions.Forbidden, lambda: transit.create_key(name="new"))

assert "kv/" in client.sys.list_mounted_secrets_engines()["data"]
assert "cert/" in client.sys.list_auth_methods()["data"]
assert "line1" in client.adapter.get("/v1/sys/policies/acl")["data"]["keys"]
refused(exceptions.Forbidden, lambda: client.sys.enable_secrets_engine("kv", path="other"))
refused(exceptions.Forbidden, lambda: client.sys.create_or_update_policy("all", 'path "*" {}'))
refused(exceptions.Forbidden, lambda: client.sys.initialize())
refused(exceptions.InvalidPath, lambda: client.sys.start_root_token_generation(otp="x" * 24))
refused(exceptions.InvalidPath, lambda: client.sys.rotate_encryption_key())

client.auth.token.revoke_self()
assert not client.is_authenticated()
print("ok")

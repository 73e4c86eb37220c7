"""hvac_unseal.py URL CA ANSWER: the stock client for Python brings the answer of a key
master. Prints how many shares are given, or what was not as it expects."""

import sys

import hvac
from hvac import exceptions

url, ca, answer = sys.argv[1:4]
client = hvac.Client(url=url, verify=ca)
try:
    client.sys.submit_unseal_key(reset=True)
except exceptions.InvalidRequest as e:
    assert "reset" in str(e), e
else:
    raise AssertionError("a client resets the opening")
with open(answer, encoding="utf-8") as f:
    status = client.sys.submit_unseal_key(key=f.read())
assert status["sealed"], status
print("progress", status["progress"])

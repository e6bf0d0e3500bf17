"""The script that a team writes first: stacks by change sets, boto3, a pool of threads. Prints wall and processor time, and calls.

    python3 threads.py ENDPOINT deploy STACKS THREADS TEMPLATE_URL
    python3 threads.py ENDPOINT list
"""

import concurrent.futures
import json
import sys
import time

import boto3
from botocore.config import Config

endpoint, mode = sys.argv[1:3]
threads = int(sys.argv[4]) if mode == "deploy" else 1
account = "ASIA000000000008" if mode == "deploy" else "ASIA000000000009"
cfn = boto3.client(
    "cloudformation", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=account,
    aws_secret_access_key="s", config=Config(max_pool_connections=threads),
)
calls = 0


def counted(**_):
    global calls
    calls += 1


cfn.meta.events.register("before-send.cloudformation.*", counted)


def deploy(index):
    name = f"script-{index:05}"
    made = cfn.create_change_set(StackName=name, ChangeSetName=f"c{time.time_ns()}", ChangeSetType="CREATE", TemplateURL=sys.argv[5])["Id"]
    while cfn.describe_change_set(ChangeSetName=made)["Status"] != "CREATE_COMPLETE":
        time.sleep(1)
    cfn.execute_change_set(ChangeSetName=made)
    while cfn.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"].endswith("IN_PROGRESS"):
        time.sleep(1)


wall, cpu = time.perf_counter(), time.process_time()
if mode == "deploy":
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(deploy, range(int(sys.argv[3]))))
else:
    pages = cfn.get_paginator("list_stacks").paginate()
    found = sum(len(page["StackSummaries"]) for page in pages)
    assert found == 10000, found
print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "calls": calls}))

"""Runs examples of upstream: applies them, waits as their READMEs do, and runs their commands."""

import json
import shlex


def apply(kubectl, objects):
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def is_told(said, told):
    """Whether a command said so; with `!` before it, whether it did not."""
    return told[1:] not in said if told.startswith("!") else told in said


def are_ready(mine):
    """As READMEs wait for them: the pods of Deployments are there a moment after those."""
    wanted = mine.get("deployments,daemonsets")["items"]
    mine.rolled_out(*[f"{each['kind'].lower()}/{each['metadata']['name']}" for each in wanted], seconds=200)
    mine("wait", "--for=condition=Ready", "pod", "--all", "--timeout=200s", seconds=210)


def run(mine, where, command):
    """What a command in a pod writes, or what a container has written: also when it fails."""
    words = shlex.split(command)
    if words[0] == "logs":
        done = mine.run("logs", where, "-c", words[1])
    else:
        done = mine.run("exec", where, "--", *words, seconds=60)
    return done.stdout + done.stderr

"""Checks that a script counts: each is printed, and the last line says how many have failed."""
import sys

failures = []


def check(what, good, detail=""):
    print(f"  {'ok' if good else 'FAIL'} {what}" + (f": {detail}" if detail else ""), flush=True)
    if not good:
        failures.append(what)


def finish():
    """Ends the script; status 1 if a check has failed."""
    print(f"{len(failures)} failures", *failures, sep="\n  ")
    sys.exit(bool(failures))

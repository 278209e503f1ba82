"""Licences and duplicates of all dependencies, by the rules of deny.toml."""

import json
import subprocess
import sys
import tomllib


def allowed(expression, rules):
    """An SPDX expression is allowed when one alternative of each conjunction is."""
    expression = expression.replace("/", " OR ").replace("(", "").replace(")", "")
    alternatives = [part.strip() for part in expression.split(" OR ")]
    return any(all(word.strip() in rules for word in part.split(" AND ")) for part in alternatives)


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in used]
    problems = []
    for package in packages:
        name, licence = package["name"], package["license"]
        licence = rules["licenses"]["clarify"].get(name, licence)
        if not licence or not allowed(licence, rules["licenses"]["allow"]):
            problems.append(f"{name}: licence {licence!r} is not in deny.toml")
        if name in rules["bans"]["deny"]:
            problems.append(f"{name}: {rules['bans']['deny'][name]}")
    for name in rules["bans"]["single"]:
        versions = sorted(package["version"] for package in packages if package["name"] == name)
        if len(versions) > 1:
            problems.append(f"{name}: more than one version: {', '.join(versions)}")
    print("\n".join(problems) or f"{len(packages)} packages: licences and duplicates are as deny.toml says")
    sys.exit(bool(problems))


main()

"""One of several processes of a test: a run that goes on until it is stopped, or until another host has ended."""

import dataclasses
import time
from pathlib import Path

from r1jax import hosts, launch


@dataclasses.dataclass(frozen=True)
class Config:
    """Takes a folder, and says in it that the run has begun."""

    workdir: str = ""


def main(config: Config) -> None:
    with launch.StopRequest() as stop:
        while not hosts.any_host(bool(stop)):
            hosts.on_first((Path(config.workdir) / "begun").touch)
            time.sleep(0.05)
    raise launch.Interrupted


if __name__ == "__main__":
    launch.run(main, Config, on_several_hosts=True)

"""What /sys says of hardware, read from a copy of it."""

from __future__ import annotations

from pathlib import Path

from polywan.core.detection.kinds import Device
from polywan.core.world.observed import Link
from polywan.daemon.lookups.devices import read


def device(sysfs: Path, name: str, index: int, driver: str = "", uevent: str = "", speed: str = "") -> None:
    folder = sysfs / "net" / name
    folder.mkdir(parents=True)
    (folder / "ifindex").write_text(f"{index}\n")
    (folder / "uevent").write_text(uevent)
    if speed:
        (folder / "speed").write_text(f"{speed}\n")
    if driver:
        (folder / "device").mkdir()
        (folder / "device" / "driver").symlink_to(f"../../../bus/usb/drivers/{driver}")


def link(name: str, index: int) -> Link:
    return Link(index=index, name=name, up=True, carrier=True)


def test_driver_type_and_speed_are_read(tmp_path: Path) -> None:
    device(tmp_path, "wwan0", 7, "qmi_wwan", "DEVTYPE=wwan\nINTERFACE=wwan0\n")
    device(tmp_path, "eth1", 8, "e1000e", "INTERFACE=eth1\n", "1000")
    assert read([link("wwan0", 7), link("eth1", 8)], tmp_path).devices == {
        "wwan0": Device(driver="qmi_wwan", devtype="wwan"),
        "eth1": Device(driver="e1000e", speed=1000),
    }


def test_a_port_without_a_link_has_no_speed(tmp_path: Path) -> None:
    device(tmp_path, "eth1", 8, speed="-1")
    assert read([link("eth1", 8)], tmp_path).devices["eth1"].speed == 0


def test_a_device_of_the_same_name_in_another_namespace_is_another_one(tmp_path: Path) -> None:
    device(tmp_path, "eth1", 8, "qmi_wwan")
    assert read([link("eth1", 2)], tmp_path).devices == {}


def test_serial_ports_of_modems_are_told_from_others(tmp_path: Path) -> None:
    for port, driver in (
        ("ttyUSB0", "option1"),
        ("ttyUSB1", "ftdi_sio"),
        ("ttyACM0", "cdc_acm"),
        ("ttyS0", "serial8250"),
    ):
        (tmp_path / "tty" / port / "device").mkdir(parents=True)
        (tmp_path / "tty" / port / "device" / "driver").symlink_to(f"../../{driver}")
    assert read([], tmp_path).serial == ("ttyACM0", "ttyUSB0")


def test_where_nothing_is_shown_nothing_is_known(tmp_path: Path) -> None:
    found = read([link("eth1", 8)], tmp_path)
    assert (found.devices, found.serial) == ({}, ())

"""What tests of several data sets need."""

import socket

import pytest


@pytest.fixture
def no_network(monkeypatch):
    """Fails the test if it looks for a host or connects to one."""

    def refuse(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)

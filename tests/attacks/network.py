"""Reaching out: every kind of socket. The host listens, and must not be reached."""

from attacks.aims import ABSTRACT, DATAGRAM_PATH, PORT, SOCKET_PATH, escaped, escaped_unless_refused, system_call


def connect_to_a_server_of_the_host():
    """TCP over the loopback interface."""
    import socket

    escaped_unless_refused(lambda: socket.create_connection(("127.0.0.1", PORT), timeout=2))


def connect_over_ipv6():
    """TCP over IPv6, where the host has it."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_INET6).connect(("::1", PORT)))


def send_a_datagram():
    """UDP needs no connection."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", PORT)))


def listen_for_others():
    """Serve on a port of all interfaces."""
    import socket

    escaped_unless_refused(lambda: socket.create_server(("", 0)))


def resolve_a_name():
    """The question itself would carry data out."""
    import socket

    escaped_unless_refused(lambda: socket.getaddrinfo("secret.example.com", 80))


def fetch_a_page():
    """Through the standard library's HTTP client."""
    import urllib.request

    escaped_unless_refused(lambda: urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=2))


def connect_to_an_abstract_socket():
    """Abstract names are no files; only a network namespace or Landlock keeps them apart."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_UNIX).connect(f"\0{ABSTRACT}"))


def connect_to_a_socket_file():
    """Landlock does not see connections to socket files."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_UNIX).connect(SOCKET_PATH))


def send_from_a_socket_pair():
    """A pair of datagram sockets can be addressed to others without calling socket()."""
    import socket

    escaped_unless_refused(
        lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", DATAGRAM_PATH),
    )


def reconnect_a_socket_pair():
    """A connected stream might be connected elsewhere."""
    import socket

    escaped_unless_refused(lambda: socket.socketpair()[0].connect(SOCKET_PATH))


def talk_to_the_kernel_over_netlink():
    """Lists interfaces, routes, and the host's sockets."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))


def open_a_raw_socket():
    """Forge packets."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))


def open_a_packet_socket():
    """Listen to all packets of the host."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768))


def open_a_machine_socket():
    """Reach the hypervisor."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))


def open_a_cryptographic_socket():
    """AF_ALG: a favourite way into the kernel."""
    import socket

    escaped_unless_refused(lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))


def use_inherited_sockets():
    """A descriptor that the host has left open."""
    import socket

    for number in range(3, 256):
        try:
            socket.socket(fileno=number).send(b"x")
            escaped(number)
        except OSError:
            pass


def make_a_socket_without_the_c_library():
    """The system call itself."""
    if system_call(41, 198, 2, 1, 0) >= 0:
        escaped()

"""The login on an SSH connection: keys, questions and passwords over paramiko, as ssh would do it."""

from __future__ import annotations

import base64
import copy
import io
import logging
import os
import queue
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hpclab.errors import ConnectionLost, LoginFailed
from hpclab.shell import printable
from hpclab.sshconfig import SshConfig

if TYPE_CHECKING:
    import paramiko

    from hpclab.hosts import Ask

TRIES = 3
A_DAY_S = 86400.0
IDENTITIES = ("id_rsa", "id_ecdsa", "id_ed25519")
ASKED_ANEW = re.compile(r"one.?time|otp|code|token|factor|verif|duo", re.IGNORECASE)


@dataclass
class Memory:
    """What was told once and is needed again; it never leaves this process."""

    keys: dict[str, paramiko.PKey] = field(default_factory=dict)
    """Encrypted ones, by path, once they are decrypted."""
    passwords: dict[str, str] = field(default_factory=dict)
    """By prompt: right the last time, and good for one more."""
    banners: set[str] = field(default_factory=set)
    """Those that were shown."""


class Words(logging.Handler):
    """What the server gives as its reasons; paramiko tells them to its log alone."""

    hanging_up = ""
    refusal = ""
    """Of a channel."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if found := re.match(r"Disconnect \(code \d+\): (.*)", said, re.DOTALL):
            self.hanging_up = found[1]
        elif found := re.search(r"open FAILED: (.*): (.*)", said, re.DOTALL):
            self.refusal = printable(f"{found[2]}: {found[1]}")


class Authentication:
    """One login: ssh's methods in ssh's order, as long as the server goes on asking."""

    def __init__(
        self,
        config: SshConfig,
        transport: paramiko.Transport,
        words: Words,
        memory: Memory,
        ask: Ask,
        tell: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        self._config, self._transport, self._words, self._memory = config, transport, words, memory
        self._ask, self._tell, self._timeout_s = ask, tell, timeout_s
        self._known_passwords = dict(memory.passwords)
        self._passwords: dict[str, str] = {}
        self._tried: list[str] = []
        self._close_agent: Callable[[], None] = lambda: None
        self._wrong = 0
        self._greeting = ""
        self._banners: list[str] = []
        self._instructions = ""

    def log_in(self) -> None:
        import paramiko

        try:
            self._log_in()
        except (paramiko.SSHException, EOFError, OSError) as error:
            if self._words.hanging_up or self._wrong or self._late_banners():
                raise self._failed([]) from error
            raise ConnectionLost(
                f"{self._config.destination} closed the connection during the login\n  {words_of(error)}\n"
                "try again; if it stays so, ask the people who run it whether your account is in order"
            ) from error
        finally:
            self._close_agent()
            if self._wrong or self._transport.is_authenticated():
                self._memory.passwords = self._passwords if self._transport.is_authenticated() else {}

    def _log_in(self) -> None:
        import paramiko

        self._transport.auth_timeout = self._timeout_s
        try:
            self._transport.auth_none(self._config.user)
            return
        except paramiko.BadAuthenticationType as error:
            allowed = error.allowed_types
        self._hear()
        self._greeting = "".join(self._banners)
        keys = self._keys()
        methods: dict[str, Callable[[], list[str] | None]] = {
            "publickey": lambda: self._by_key(keys),
            "keyboard-interactive": self._by_dialogue,
            "password": self._by_password,
        }
        while methods:
            method = next((name for name in methods if name in allowed), None)
            if method is None:
                break
            still_wanted = methods[method]()
            self._hear()
            if still_wanted is None:
                del methods[method]
            elif still_wanted:
                allowed = still_wanted
            else:
                return
        raise self._failed(allowed)

    # Each method gives [] when we are in, the methods still wanted after a part of it, or None when it gives up.

    def _by_key(self, keys: Iterator[tuple[str, paramiko.PKey]]) -> list[str] | None:
        import paramiko

        for name, key in keys:
            self._tried.append(name)
            # an agent may ask its user before it signs
            self._transport.auth_timeout = A_DAY_S if isinstance(key, paramiko.AgentKey) else self._timeout_s
            try:
                return self._transport.auth_publickey(self._config.user, key)
            except paramiko.BadAuthenticationType:
                return None
            except (paramiko.SSHException, ValueError) as error:
                self._see_that_it_speaks(error)
        return None

    def _by_dialogue(self) -> list[str] | None:
        """The questions come in paramiko's thread, and are asked in this one, where Ctrl-C is heard."""
        import paramiko

        self._tried.append("keyboard-interactive")
        self._transport.auth_timeout = A_DAY_S
        while self._wrong < TRIES:
            said: queue.Queue[Any] = queue.Queue()
            answers: queue.Queue[list[str] | None] = queue.Queue()

            def handler(
                title: str, instructions: str, prompts: list[tuple[str, bool]], said: Any = said, answers: Any = answers
            ) -> list[str]:
                said.put((title, instructions, prompts))
                if (answer := answers.get()) is None:
                    raise paramiko.SSHException("given up")
                return cast(list[str], answer)

            def dialogue(said: Any = said, handler: Any = handler) -> None:
                try:
                    said.put(self._transport.auth_interactive(self._config.user, handler))
                except BaseException as error:
                    said.put(error)

            threading.Thread(target=dialogue, name="hpclab-login", daemon=True).start()
            asked = False
            try:
                while isinstance(word := said.get(timeout=self._timeout_s), tuple):
                    asked = asked or bool(word[2])
                    answers.put(self._answers(*word))
            except queue.Empty:
                raise self._silent() from None
            finally:
                answers.put(None)
            if isinstance(word, list):
                return word
            if not isinstance(word, paramiko.AuthenticationException) or not self._transport.is_active():
                raise word
            if not asked or isinstance(word, paramiko.BadAuthenticationType):
                return None
            self._wrong += 1
        return None

    def _by_password(self) -> list[str] | None:
        import paramiko

        self._tried.append("password")
        self._transport.auth_timeout = self._timeout_s
        while self._wrong < TRIES:
            (answer,) = self._answers("", "", [(f"{self._config.user}@{self._config.hostname}'s password: ", False)])
            try:
                return self._transport.auth_password(self._config.user, answer, fallback=False)
            except paramiko.BadAuthenticationType:
                return None
            except paramiko.AuthenticationException as error:
                self._see_that_it_speaks(error)
                self._wrong += 1
        return None

    def _see_that_it_speaks(self, error: Exception) -> None:
        """paramiko has one class for `no`, `no answer` and `no connection`."""
        if not self._transport.is_active():
            raise error
        if "timeout" in str(error):
            raise self._silent() from error

    def _silent(self) -> ConnectionLost:
        return ConnectionLost(
            f"{self._config.destination} does not answer any more, in the middle of the login\ntry again"
        )

    def _answers(self, title: str, instructions: str, prompts: list[tuple[str, bool]]) -> list[str]:
        words = "\n".join(printable(text).strip() for text in (title, instructions) if text.strip())
        if words:
            self._instructions = words
            self._show_banners()
            self._tell(words)
        return [self._answer(printable(prompt), echo=echo) for prompt, echo in prompts]

    def _answer(self, prompt: str, *, echo: bool) -> str:
        answer = self._known_passwords.pop(prompt, None)
        if answer is None:
            answer = self._question(prompt, echo=echo)
        if "password" in prompt.lower() and not echo and not ASKED_ANEW.search(prompt):
            self._passwords[prompt] = answer
        return answer

    def _question(self, prompt: str, *, echo: bool = False) -> str:
        self._show_banners()
        return self._ask(prompt, echo=echo)

    def _show_banners(self) -> None:
        self._hear()
        for banner in self._banners:
            if banner not in self._memory.banners:
                self._memory.banners.add(banner)
                self._tell(banner)

    def _hear(self) -> None:
        """paramiko keeps the last banner alone, and forgets it with the next method."""
        banner = printable((getattr(self._transport.auth_handler, "banner", None) or b"").decode(errors="replace"))
        if banner.strip() and banner.strip() not in self._banners:
            self._banners.append(banner.strip())

    def _late_banners(self) -> list[str]:
        """PAM's words, as `Your account has expired`, come in a second banner."""
        self._hear()
        return [banner for banner in self._banners if banner != self._greeting and banner not in self._memory.banners]

    def _failed(self, wanted: Sequence[str]) -> LoginFailed:
        said = [self._words.hanging_up, *self._late_banners(), self._instructions]
        lines = [f"{self._config.destination} does not let {self._config.user} in"]
        lines += [f"  it wanted: {', '.join(wanted)}"] if wanted else []
        lines += [f"  tried: {', '.join(self._tried) or 'nothing that it takes'}"]
        lines += [f"  wrong answers: {self._wrong}"] if self._wrong else []
        lines += [f"  it said: {line}" for words in said for line in printable(words).splitlines() if line.strip()]
        port = [] if self._config.port == 22 else ["-p", str(self._config.port)]
        check = "were they mistyped? else check the user name" if self._wrong else "check the user name and the keys"
        lines += [f"{check}; try `{shlex.join(['ssh', *port, self._config.destination])}`"]
        return LoginFailed("\n".join(lines))

    # keys

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """The agent's, then files, and last those for which the user must be asked."""
        files = [Path(file).expanduser() for file in self._config.identity_files or _default_identities()]
        public = {_public_key(file) for file in files} - {b""}
        agent = [key for key in self._agent_keys() if not self._config.identities_only or key.blob in public]
        # those that the user has named come first
        for held in sorted(agent, key=lambda held: held.blob not in public):
            yield f"{held.comment or held.get_name()} of the agent", held
        offered = {key.blob for key in agent}
        encrypted = []
        for file in files:
            if not file.is_file() or _public_key(file) in offered:
                continue
            try:
                key = self._memory.keys.get(str(file)) or _load_key(file, None)
            except TypeError:
                encrypted.append(file)
                continue
            except Exception as error:  # hardware keys, and what is no key at all
                self._tried.append(f"{file} (not readable: {words_of(error)})")
                continue
            yield from self._with_certificates(file, key)
        for file in encrypted:
            if decrypted := self._decrypted(file):
                yield from self._with_certificates(file, decrypted)

    def _agent_keys(self) -> list[paramiko.AgentKey]:
        import paramiko
        from paramiko.agent import AgentSSH

        agent: Any
        place = os.path.expandvars(self._config.identity_agent)
        try:
            if place == "none":
                return []
            if place in ("", "SSH_AUTH_SOCK"):
                agent = paramiko.Agent()
                self._close_agent = agent.close
            else:
                sock = socket.socket(socket.AF_UNIX)
                self._close_agent = sock.close
                sock.connect(place)
                agent = AgentSSH()
                agent._connect(sock)
            keys: list[paramiko.AgentKey] = list(agent.get_keys())
        except (paramiko.SSHException, OSError, AttributeError):  # it is not there
            return []
        for key in keys:
            _sign_or_not(key)
        return keys

    def _decrypted(self, file: Path) -> paramiko.PKey | None:
        for _ in range(TRIES):
            passphrase = self._question(f"Passphrase for the key {file}: ")
            if not passphrase:
                break
            try:
                key = _load_key(file, passphrase)
            except (ValueError, TypeError):
                continue
            self._memory.keys[str(file)] = key
            return key
        self._tried.append(f"{file} (not decrypted)")
        return None

    def _with_certificates(self, file: Path, key: paramiko.PKey) -> Iterator[tuple[str, paramiko.PKey]]:
        for path in (*self._config.certificate_files, f"{file}-cert.pub"):
            certificate = Path(path).expanduser()
            # the public key stands in its certificate as it is, but for the name of its type
            if key.asbytes()[4 + len(key.get_name()) :] in _public_key(certificate):
                certified = copy.copy(key)
                certified.load_certificate(str(certificate))
                yield str(certificate), certified
        yield str(file), key


def _sign_or_not(key: Any) -> None:
    """An agent may refuse. That would end paramiko's thread; without a signature the server says no, and we go on."""
    sign = key.sign_ssh_data

    def sign_ssh_data(data: bytes, algorithm: str | None = None) -> Any:
        try:
            return sign(data, algorithm)
        except Exception:  # of paramiko, or of the agent's socket
            return b""

    key.sign_ssh_data = sign_ssh_data


def _default_identities() -> list[str]:
    return [f"~/.ssh/{name}" for name in IDENTITIES]


def _public_key(file: Path) -> bytes:
    """As it stands beside the private one; empty if it does not."""
    try:
        public = file if file.suffix == ".pub" else file.with_name(f"{file.name}.pub")
        return base64.b64decode(public.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return b""


def _load_key(file: Path, passphrase: str | None) -> paramiko.PKey:
    """TypeError: it needs a passphrase; ValueError: this one is wrong, or it is no key that paramiko knows."""
    import paramiko
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    data, password = file.read_bytes(), passphrase.encode() if passphrase else None
    loaded: Any
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        loaded = serialization.load_ssh_private_key(data, password)
    else:
        loaded = serialization.load_pem_private_key(data, password)
    classes: dict[Any, type[paramiko.PKey]] = {
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
        rsa.RSAPrivateKey: paramiko.RSAKey,
    }
    key_class = next((ours for theirs, ours in classes.items() if isinstance(loaded, theirs)), None)
    if key_class is None:
        raise ValueError("a type of key that paramiko does not know")
    # paramiko would decrypt it once for each type that it tries
    text = loaded.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return key_class.from_private_key(io.StringIO(text.decode()))


def words_of(error: BaseException) -> str:
    """An exception's own, without codes."""
    text = getattr(error, "text", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return printable(str(text))

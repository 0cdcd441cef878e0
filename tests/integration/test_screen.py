"""The web page, in a real browser."""

from __future__ import annotations

import json
import re
import time
from typing import Any, ClassVar

from tests.integration.browser import NARROW, WIDE, BrowserCase, of_instance
from tests.integration.harness import wait_until
from tests.integration.tarballs import file
from tests.integration.test_access import AccessCase

SERVER = """\
#!/bin/sh
echo ready
exec sleep 1000
"""
COUNTS = """\
#!/bin/sh
n=0
while :; do n=$((n + 1)); echo count $n; sleep 0.2; done
"""
ORDERS = r"""#!/bin/sh
n=0
while :; do
    n=$((n + 1))
    printf '\033[32mINFO\033[0m  order %d taken in %d ms\n' $n $((n % 37 + 3))
    [ $((n % 7)) = 0 ] && printf '\033[33mWARN\033[0m  the queue has %d entries\n' $((n % 90))
    [ $((n % 9)) = 0 ] && printf '\033[1;31mERROR\033[0m payment %d was refused\n' $n >&2
    sleep 0.3
done
"""
FAILS = """\
#!/bin/sh
exit 3
"""


class OverviewTests(BrowserCase):
    """All instances at a glance."""

    def test_live(self) -> None:
        """What happens is seen at once: a launch, an end with its reason, a removal."""
        page = self.open()
        page.get_by_text("Nothing runs yet").wait_for()
        name = self.launch(**self.job(SERVER))
        row = page.get_by_role("row").filter(has_text=name)
        row.get_by_text("running").wait_for()
        failed = self.launch(**self.job(FAILS))
        page.get_by_role("row").filter(has_text=failed).get_by_text("failed").wait_for()
        page.get_by_text("exit status 3").wait_for()
        self.ask("DELETE", f"/destroy/{name}")
        row.wait_for(state="detached")

    def test_host(self) -> None:
        """The machine is there too: what is left of it, and how many inits are warm."""
        page = self.open()
        host = page.get_by_role("list", name="The host")
        host.get_by_text("disk free").wait_for()
        self.assertNotIn("warm", host.inner_text())  # none are wanted here
        told = {
            **self.ask("GET", "/host").json,
            "pressure": {"cpu": 34.5, "io": 0},
            "memory": {"total": 8 << 30, "available": 1 << 20},
            "disk": {"total": 8 << 30, "available": 4 << 30},
            "pool": {"wanted": 2, "warm": 1},
        }
        page.route("**/host", lambda route: route.fulfill(json=told))
        host.get_by_text("1 of 2 inits warm").wait_for()
        scarce = [text.split()[0] for text in host.locator(".bad").all_inner_texts()]
        self.assertEqual(scarce, ["35", "1.0"])

    def test_hidden(self) -> None:
        """A page that nobody sees asks for nothing; when it is seen again, at once."""
        page = self.open()
        page.clock.install()
        page.reload()
        page.get_by_text("disk free").wait_for()
        page.get_by_text("Nothing runs yet").wait_for()  # then it has asked for all that it needs
        self.show(page, "hidden")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.clock.run_for(60_000)
        self.assertEqual(asked, [])
        with page.expect_request("**/host"):
            self.show(page, "visible")

    def show(self, page: Any, how: str) -> None:
        """Have a page believe that it is visible or hidden."""
        page.evaluate(
            """how => {
                const hidden = {value: how === "hidden", configurable: true};
                Object.defineProperty(document, "hidden", hidden);
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            how,
        )

    def test_a_thousand(self) -> None:
        """Of 1,000 instances those in sight are drawn; all are reached, and found by a word."""
        name = self.launch(**self.job(SERVER))
        (one,) = self.ask("GET", "/instances").json["instances"]
        told = {"instances": [one | {"instance": f"web-{number}"} for number in range(1000)]}
        page = self.open()
        page.get_by_text(name).wait_for()
        page.route("**/instances", lambda route: route.fulfill(json=told))
        page.reload()
        # And the real one, if the page hears of that after it has read them all.
        page.get_by_text(re.compile("1,00[01] instances")).wait_for()
        self.assertLess(page.locator(".tall .row").count(), 60)
        page.locator(".rows").evaluate("box => (box.scrollTop = box.scrollHeight)")
        page.get_by_role("row").filter(has_text="web-999").wait_for()
        self.assertLess(page.locator(".tall .row").count(), 60)
        page.locator(".rows").evaluate("box => (box.scrollTop = 0)")
        page.get_by_role("row").filter(has_text="web-0").wait_for()
        page.get_by_label("Filter instances").fill("web-77")
        page.get_by_role("row").filter(has_text="web-779").wait_for()
        self.assertEqual(page.locator(".tall .row").count(), 11)

    def test_manager_killed(self) -> None:
        """A manager that is gone is told; with the next one the page goes on, without a gap."""
        name = self.launch(**self.job(SERVER))
        page = self.open()
        page.get_by_text(name).wait_for()
        self.manager.kill()
        self.manager.wait()
        page.get_by_text("trying again").wait_for()
        self.start()
        other = self.launch(**self.job(SERVER))
        page.get_by_text("live").wait_for()
        page.get_by_text(other).wait_for()
        page.get_by_role("row").filter(has_text=name).get_by_text("found again").wait_for()

    def test_late_answer(self) -> None:
        """What has begun while all instances were read stays, though that answer lacks it."""
        page = self.open()
        page.get_by_text("Nothing runs yet").wait_for()
        held: list[Any] = []
        page.route("**/instances", lambda route: held.append(route))
        self.manager.kill()
        self.manager.wait()
        with page.expect_request("**/instances"):
            self.start()
        name = self.launch(**self.job(SERVER))
        row = page.get_by_role("row").filter(has_text=name)
        row.get_by_text("running").wait_for()
        with page.expect_request(re.compile(f"match={name}")):
            held[0].fulfill(json={"instances": []})
        row.get_by_text("running").wait_for()

    def test_selection(self) -> None:
        """What is selected stays selected when others come before it: instances, events."""
        page = self.open()
        config = self.config(**self.job(SERVER))
        self.launch_as("b", config)
        page.get_by_role("row").filter(has=page.get_by_role("link", name="b")).wait_for()
        page.keyboard.press("j")
        self.launch_as("a", config)
        page.locator(".row:first-child a[href$='/a']").wait_for()
        page.locator(".row.selected a[href$='/b']").wait_for()
        self.go(page, "#/events")
        page.locator(".row:first-child a[href$='/a']").wait_for()
        page.keyboard.press("j")
        self.launch_as("c", config)
        page.locator(".row:first-child a[href$='/c']").wait_for()
        page.locator(".row.selected a[href$='/a']").wait_for()

    def launch_as(self, name: str, config: dict[str, Any]) -> None:
        """Launch a config under a name."""
        launched = self.ask("POST", "/instances", {"config": config, "instance": name})
        self.assertEqual(launched.status, 200, launched.reason)

    def test_keys(self) -> None:
        """The keyboard is enough: to move, to filter, to learn the keys."""
        launched = [self.launch(**self.job(SERVER)) for _ in range(3)]
        page = self.open()
        page.get_by_text(launched[2]).wait_for()
        names = page.locator(".row .name a").all_inner_texts()
        self.assertEqual({*names}, {*launched})
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.locator(".row.selected").filter(has_text=names[1]).wait_for()
        page.keyboard.press("k")
        page.locator(".row.selected").filter(has_text=names[0]).wait_for()
        page.keyboard.press("/")
        page.keyboard.type(names[2])
        page.get_by_text(names[0]).wait_for(state="detached")
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        page.get_by_role("dialog").get_by_text("all keys").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="detached")

    def test_at_once(self) -> None:
        """Where one goes and what one presses before a picture was drawn is not lost."""
        name = self.launch(**self.job(SERVER))
        page = self.open()
        to_logs = "() => (location.hash = '#/logs')"
        page.add_init_script(f"addEventListener('DOMContentLoaded', {to_logs})")
        page.reload()
        page.get_by_role("heading", name="Logs").wait_for()
        self.press_at_once(page, "j", ".row .when")
        self.press_at_once(page, "Enter", ".row.selected")
        self.go(page, "#/events")
        page.get_by_role("heading", name=name).wait_for()

    def press_at_once(self, page: Any, key: str, what: str) -> None:
        """Have a key be pressed as soon as something is there."""
        page.evaluate(
            """([key, what]) => new MutationObserver((_, observer) => {
                if (!document.querySelector(what)) return;
                observer.disconnect();
                document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
            }).observe(document.body, {attributes: true, childList: true, subtree: true})""",
            [key, what],
        )


class SignInTests(BrowserCase, AccessCase):
    """The page of a manager that asks for tokens."""

    options: tuple[str, ...] = ("--tokens", "tokens")

    def ask(self, *request: Any, **headers: str) -> Any:
        """Ask as the holder of a token."""
        return super().ask(*request, Authorization="Bearer s3cret", **headers)

    def sign_in(self, page: Any, token: str, keep: bool = False) -> None:
        """Fill in the form."""
        page.get_by_label("Token").fill(token)
        if keep:
            page.get_by_label("Keep it").check()
        page.get_by_role("button", name="Sign in").click()

    def test_sign_in(self) -> None:
        """Without a token there is a form and no data; with one, all; a wrong one is told."""
        name = self.launch(**self.job(SERVER))
        page = self.open()
        page.get_by_label("Token").wait_for()
        self.assert_accessible(page)
        self.assertNotIn(name, page.content())
        self.sign_in(page, "wrong")
        page.get_by_text("does not know this token").wait_for()
        self.sign_in(page, "s3cret")
        page.get_by_text(name).wait_for()
        page.reload()
        page.get_by_label("Token").wait_for()
        self.sign_in(page, "0ther", keep=True)
        page.get_by_text("live, read-only").wait_for()
        page.reload()
        page.get_by_text(name).wait_for()
        self.write_tokens(ann=("write", "s3cret"))
        page.reload()
        page.get_by_label("Token").wait_for()

    def test_reading_only(self) -> None:
        """Whoever may only read is offered nothing that changes anything, and no shell."""
        name = self.launch(**self.job(SERVER))
        page = self.open(of_instance(name))
        self.sign_in(page, "0ther")
        page.get_by_text("Your token may only read.").wait_for()
        for button in ("Stop", "Destroy", "Launch", "Upload", "Prune…"):
            for view in (of_instance(name), "#/configs", "#/disk"):
                self.go(page, view)
                self.assertEqual(page.get_by_role("button", name=button).count(), 0)
        self.go(page, of_instance(name, "/shell"))
        page.get_by_text("a token whose role is write").wait_for()

    def test_shell_with_a_token(self) -> None:
        """A shell gets the token too, though a browser can't send it as a header."""
        name = self.launch(**self.job(SERVER))
        page = self.open(of_instance(name, "/shell"))
        self.sign_in(page, "s3cret")
        page.get_by_text(f"/bin/sh in {name}").wait_for()


class InstanceTests(BrowserCase):
    """One instance."""

    pool = 1

    def test_actions(self) -> None:
        """Each action says before what it does, does it, and what has become of it is seen."""
        mounts = [f"{self.mountable('data.tar', file('kept', 'x'))} /data READWRITE"]
        job = self.job(SERVER, mounts=mounts, volumes=["pg /var/pg"])
        name = self.launch(**job)
        page = self.open(of_instance(name))
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("dialog").get_by_text("asked to end, and killed after 2 s").wait_for()
        page.get_by_role("button", name="Cancel").click()
        self.assertEqual(self.running(), [name])
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Start", exact=True).click()
        page.get_by_role("button", name="Restart").wait_for()
        self.assertEqual(self.running(), [name])
        page.get_by_role("button", name="Destroy").click()
        said = page.get_by_role("dialog").inner_text()
        self.assertIn("Removed for good: what it has written to /data; and its logs.", said)
        self.assertIn("Stays: the volume pg.", said)
        page.get_by_role("dialog").get_by_role("button", name="Destroy").click()
        page.get_by_text("Nothing runs yet").wait_for()
        self.assertEqual(self.running(), [])

    def test_launch(self) -> None:
        """The launch is drawn step by step, and what had been done in advance is marked."""
        wait_until(self.warm, "an init is warm")
        name = self.launch(**self.job(SERVER))
        steps = self.ask("GET", f"/instances/{name}").json
        page = self.open(of_instance(name, "/launch"))
        page.get_by_text("before anyone asked").wait_for()
        drawn = page.locator(".steps .phase")
        self.assertEqual(drawn.count(), len(steps["plan"]))
        advance = page.locator(".steps .track .advance").count()
        self.assertEqual(advance, steps["in_advance"])
        self.assertGreater(advance, 0)
        parts = page.locator(".launch section").first.inner_text()
        for part in ("In advance", "Request read", "Manager", "exec", "Written down"):
            self.assertIn(part, parts)

    def test_addresses(self) -> None:
        """Each view has an address: reload stays, back goes back, keys lead there."""
        name = self.launch(**self.job(SERVER))
        page = self.open(of_instance(name))
        page.get_by_text("its script runs").wait_for()
        page.keyboard.press("e")
        page.get_by_text("#!/bin/sh").wait_for()
        page.reload()
        page.get_by_text("The container by hand").wait_for()
        page.keyboard.press("l")
        page.get_by_text("ready", exact=True).wait_for()
        page.go_back()
        page.get_by_text("The container by hand").wait_for()
        self.go(page, of_instance(name, "/config"))
        page.get_by_text('"restart": "no"').wait_for()
        self.go(page, of_instance("nothing"))
        page.get_by_text("There is no instance nothing.").wait_for()

    def test_shell(self) -> None:
        """A shell takes what is typed, knows the size of its window, and ends as it ends."""
        name = self.launch(**self.job(SERVER))
        page = self.open(of_instance(name, "/shell"))
        page.get_by_text(f"/bin/sh in {name}").wait_for()
        page.keyboard.type("echo $((6*7))-$TERM\n")
        page.get_by_text("42-xterm-256color").wait_for()
        page.set_viewport_size({"width": 900, "height": 500})
        self.assert_accessible(page)
        page.keyboard.type("exit 5\n")
        page.get_by_text("it has ended: exit status 5").wait_for()
        page.get_by_role("button", name="Open another").click()
        page.get_by_text(f"/bin/sh in {name}").wait_for()


HOSTILE = (
    "<img src=x onerror=document.title='run'>",
    "\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m <script>document.title='run'</script>",
    "\x9b31m\x90q\x1b[999999999999mx\x1b[38;2;1;2;3mblue \u202egnp.exe\u2066 \0 \x7f",
    "10 %\r50 %\rdone",
    "y" * (1 << 20),
)


class LogTests(BrowserCase):
    """What instances have written."""

    def written(self, name: str, content: bytes) -> str:
        """An instance that has written this."""
        tarball = self.mountable(f"{name}.tar", file("log", content))
        job = self.job("#!/bin/sh\ncat /w/log\nexec sleep 1000\n", mounts=[f"{tarball} /w READ"])
        return self.launch(**job)

    def test_hostile(self) -> None:
        """What a container writes is shown, and does nothing: markup, escapes, 1 MB lines."""
        content = (
            "\n".join([*HOSTILE, "the last"]).encode(errors="surrogateescape") + b"\n\xff\xfe\n"
        )
        name = self.written("hostile", content)
        page = self.open(of_instance(name, "/logs"))
        page.get_by_text("the last").wait_for()
        page.get_by_text(HOSTILE[0]).wait_for()
        red = page.get_by_text("red", exact=True)
        self.assertEqual(red.evaluate("node => node.style.color"), "var(--ansi-1)")
        page.get_by_text("⟨202E⟩gnp.exe⟨2066⟩").wait_for()
        self.assertEqual(page.get_by_text("50 %").count(), 0)
        page.locator(".log-line").filter(has_text="yyyyyyyy").first.click()
        page.get_by_text(re.compile(r"and [\d,]+ characters more")).wait_for()
        self.assertEqual(page.locator(".rows img, .rows script").count(), 0)
        self.assertNotIn("run", page.title())
        self.go(page, "#/logs")
        page.get_by_text(HOSTILE[0]).wait_for()
        self.assertNotIn("run", page.title())

    def test_many_lines(self) -> None:
        """Of 100,000 lines those in sight are drawn; a filter finds some, and none can hang."""
        lines = "".join(f"line {number} {'a' * 30}\n" for number in range(100_000))
        name = self.written("many", lines.encode())
        page = self.open(of_instance(name, "/logs"))
        page.get_by_text("line 99999 ").wait_for()
        page.get_by_text("100,000 lines").wait_for()
        self.assertLess(page.locator(".row").count(), 120)
        page.locator(".rows").evaluate("box => (box.scrollTop = box.scrollHeight / 2)")
        page.get_by_text("line 50000 ").wait_for()
        box = page.get_by_label("Filter lines")
        page.route("**/filter.js", self.late)
        box.fill("line 7777[0-4] ")
        page.get_by_text("5 lines").wait_for()
        box.fill("(a+a+)+!")
        page.get_by_text("this pattern takes too long").wait_for()
        box.fill("[")
        page.get_by_text("Invalid regular expression").wait_for()
        box.fill("line 123 ")
        page.get_by_text("1 line", exact=True).wait_for()

    def late(self, route: Any) -> None:
        """Have what tries patterns come later than a pattern may take."""
        time.sleep(3)
        route.continue_()

    def test_goes_on(self) -> None:
        """Lines come as they are written, also through the end of a manager, and none twice."""
        name = self.launch(**self.job(COUNTS, restart="always"))
        page = self.open(of_instance(name, "/logs"))
        page.get_by_text("count 3", exact=True).wait_for()
        self.manager.kill()
        self.manager.wait()
        page.get_by_text("trying again").wait_for()
        self.start()
        seen = int(self.log_of(name).split()[-1])
        page.get_by_text(f"count {seen + 5}", exact=True).wait_for()
        shown = page.locator(".log-line > span").all_inner_texts()
        numbers = [int(text.split()[1]) for text in shown]
        self.assertEqual(numbers, [*range(numbers[0], numbers[0] + len(numbers))])


class KeptTests(BrowserCase):
    """Configs, the disk, and the journal."""

    def test_configs(self) -> None:
        """A config is checked while it is typed, then kept, launched, and removed."""
        page = self.open("#/configs")
        box = page.get_by_label("A config")
        config = self.config(**self.job(SERVER))
        for change, words in (
            ({"restart": "never"}, "restart must be one of no, on-failure, always"),
            ({"stop_timeout": -1}, "stop_timeout must be at least 0"),
            ({"limits": {"memoy": 1}}, "limits has no key 'memoy'"),
            ({"mounts": "x"}, "mounts must be array, not string"),
        ):
            box.fill(json.dumps({**config, **change}))
            page.get_by_text(words).wait_for()
            self.assertTrue(page.get_by_role("button", name="Upload").is_disabled())
        box.fill("{")
        page.get_by_text("it is not JSON").wait_for()
        box.fill(json.dumps(config))
        page.get_by_role("button", name="Upload").click()
        page.get_by_text("It is kept.").wait_for()
        kept = page.get_by_role("listitem").filter(has_text="0 instances")
        kept.get_by_role("button", name="Launch").click()
        page.get_by_text("its script runs").wait_for()
        (name,) = self.running()
        self.assertIn(name, page.url)
        self.go(page, "#/configs")
        page.get_by_role("button", name="Remove").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_text("is in use").first.wait_for()

    def test_steps(self) -> None:
        """A launch stops before each step, and tells what that is for; it is gone with its view."""
        self.upload(**self.job(SERVER))
        page = self.open("#/configs")
        page.get_by_role("button", name="Step").click()
        page.get_by_role("heading", name="unshare mount, cgroup").wait_for()
        page.get_by_text("It prevents: to see what the host has.").wait_for()
        page.get_by_role("button", name="Next").click()
        page.get_by_role("heading", name="namespaces").wait_for()
        page.get_by_role("button", name="hostname test-step").click()
        page.get_by_role("heading", name="hostname test-step").wait_for()
        page.get_by_role("heading", name="mounts").wait_for()
        page.keyboard.press("b")
        page.get_by_role("heading", name="pivot_root").wait_for()
        page.get_by_text("/root overlay overlay ro,nosuid").wait_for()  # what seal has done
        page.get_by_text("nsenter --target").wait_for()
        self.assert_accessible(page)
        page.get_by_role("button", name="To the program").click()
        page.get_by_text("Only this is left, and it is not done.").wait_for()
        page.keyboard.press("q")
        page.get_by_role("heading", name="Configs").wait_for()
        wait_until(lambda: not self.what_is_left(), "nothing is left")

    def test_refused_to_leave_out_a_wall(self) -> None:
        """A manager that was not started for that leaves out none, and says so."""
        config = self.upload(**self.job(SERVER))
        page = self.open(f"#/step/{'-'.join(config.values())}")
        page.get_by_label("Without a wall").select_option("pid namespace")
        page.get_by_text("Without it, this may signal the manager").wait_for()
        page.get_by_role("button", name="Try its escape").click()
        page.get_by_text("makes no container without one of its walls").wait_for()
        page.get_by_text("with --allow-unsafe").wait_for()
        self.assert_accessible(page)

    def test_disk(self) -> None:
        """What takes the disk is listed; prune says first what it would remove."""
        name = self.launch(**self.job(FAILS))
        self.ask("GET", f"/instances/{name}/wait")
        page = self.open("#/disk")
        page.get_by_role("cell", name="small.tar").first.wait_for()
        page.get_by_role("button", name="Prune…").click()
        page.get_by_role("dialog").get_by_text(f"instance {name}, with its data").wait_for()
        page.get_by_role("button", name="Cancel").click()
        self.assertEqual(len(self.ask("GET", "/instances").json["instances"]), 1)
        page.get_by_role("button", name="Prune…").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        page.get_by_text("are free again").wait_for()
        self.assertEqual(self.ask("GET", "/instances").json["instances"], [])

    def test_hostile(self) -> None:
        """Names and reasons that someone else has chosen are text, wherever they are shown."""
        image = "<img src=x onerror=document.title='run'>"
        asked = {"config": self.config(**self.job(SERVER)), "labels": {"note": image}}
        name = self.ask("POST", "/instances", asked).json["instance"]
        self.ask("POST", "/instances", {"config": self.config(command=[image])})
        page = self.open()
        for view, text in (
            (of_instance(name), f"note={image}"),
            ("#/events", image),
            ("#/instance/%3Cimg%20src=x%20onerror=alert(1)%3E", "There is no instance <img"),
            ("#/%ff%00", "Instances"),
        ):
            self.go(page, view)
            page.get_by_text(text).first.wait_for()
            self.assertEqual(page.locator("img[src=x]").count(), 0)
            self.assertNotIn("run", page.title())


class EscapeTests(BrowserCase):
    """Containers without one of their walls, in steps; and the picture of that."""

    options = ("--allow-unsafe",)

    def test_step_and_escape(self) -> None:
        """By keys alone, one goes to a step, and has an escape tried: it gets out, and is held."""
        config = self.upload(**self.job("#!/bin/sh\nsleep 60\n"), name="orders")
        for size, scheme in ((NARROW, "light"), ((1500, 640), "dark")):
            page = self.open(f"#/step/{'-'.join(config.values())}", size, scheme)
            page.get_by_text("What it has not from the manager").wait_for()
            page.get_by_role("button", name="seccomp").first.press("Enter")
            page.get_by_text("It prevents: to ask the kernel for a way around.").wait_for()
            page.keyboard.press("n")
            page.get_by_text("+ Seccomp: 2").wait_for()
            page.get_by_text("Without it, this").wait_for()  # so that the button takes keys
            page.get_by_role("button", name="Try its escape").press("Enter")
            page.get_by_text("it got out").wait_for()
            page.get_by_text("held").wait_for()
            self.assert_accessible(page)
        self.picture(page, "step")


class AccessibleTests(BrowserCase):
    """Every view, for everyone."""

    def test_views(self) -> None:
        """Wide and light, narrow and dark: axe-core finds nothing, and nothing sticks out."""
        name = self.launch(**self.job(SERVER, startup_env="PORT=1"))
        self.launch(**self.job(FAILS))
        views = ["", "#/logs", "#/events", "#/disk", "#/configs", "#/services"]
        views += [
            of_instance(name, view) for view in ("", "/launch", "/isolation", "/config", "/explain")
        ]
        for size, scheme in ((WIDE, "light"), (NARROW, "dark")):
            page = self.open(size=size, scheme=scheme)
            for view in views:
                self.go(page, view)
                page.wait_for_timeout(300)
                self.assert_shows_where_it_is(page)
                if size == WIDE or view in views[:4]:  # else it would take a minute
                    self.assert_accessible(page)
                else:
                    self.assert_fits(page)
            self.go(page, of_instance(name))
            page.get_by_role("button", name="Destroy").click()
            self.assert_accessible(page)


class PicturesTests(BrowserCase):
    """The pictures of the documents, of instances such as a person has."""

    pool = 2

    def start_shop(self) -> None:
        """Launch a web server, what takes its orders, and what fails."""
        for name, text, keys in (
            ("shop-web-1", SERVER, {"restart": "always"}),
            ("shop-web-2", SERVER, {"restart": "always"}),
            ("orders", ORDERS, {"limits": {"memory": "64M"}, "volumes": ["orders /data"]}),
            ("importer", FAILS, {}),
            ("mailer", SERVER, {}),
        ):
            config = self.config(**self.job(text, **keys), name=name.rstrip("-12"), minor="4")
            asked = {"instance": name, "config": config, "labels": {"team": "shop"}}
            self.assertEqual(self.ask("POST", "/instances", asked).status, 200)
            if name == "orders":  # its second launch finds the image unpacked, as most do
                self.ask("DELETE", f"/destroy/{name}")
                wait_until(self.warm, "an init is warm")
                self.assertEqual(self.ask("POST", "/instances", asked).status, 200)
        self.ask("POST", "/instances/mailer/stop")

    def tell_of_a_quiet_host(self, route: Any) -> None:
        """Tell of this machine, but for what the other tests make it wait for."""
        waits = {"cpu": 2.1, "memory": 0, "io": 0.4}
        route.fulfill(json=self.ask("GET", "/host").json | {"pressure": waits})

    def test_pictures(self) -> None:
        """Each view of them is drawn; SCREENSHOTS=1 keeps the pictures."""
        self.start_shop()
        page = self.open(size=(1280, 380))
        page.route("**/host", self.tell_of_a_quiet_host)
        page.get_by_text("failed", exact=True).wait_for()
        self.picture(page, "instances", seconds=45)
        page.set_viewport_size({"width": 1280, "height": 640})
        self.go(page, of_instance("orders"))
        page.get_by_text("10 min").wait_for()
        self.picture(page, "instance", seconds=3)
        self.go(page, of_instance("orders", "/isolation"))
        page.get_by_text("NET_BIND_SERVICE").wait_for()
        self.picture(page, "isolation")
        dark = self.open(of_instance("orders", "/launch"), (1280, 640), "dark")
        dark.get_by_text("From the request on").wait_for()
        self.picture(dark, "launch")
        self.go(dark, of_instance("orders", "/logs"))
        dark.get_by_text("was refused").first.wait_for()
        self.picture(dark, "logs")
        narrow = self.open(size=NARROW)
        narrow.route("**/host", self.tell_of_a_quiet_host)
        narrow.get_by_role("list", name="The host").get_by_text("2.1 %").wait_for()
        self.picture(narrow, "narrow", seconds=5)


class ServicesTests(BrowserCase):
    """Stacks, with answers in the manager's place: what is shown, and what is asked for."""

    service: ClassVar[dict[str, Any]] = {
        "service": "shop-web",
        "stack": "shop",
        "config": "web-1-4",
        "state": "rolled back",
        "why": "<img src=x onerror=document.title='run'> did not become healthy",
        "replicas": 2,
        "running": 2,
        "serving": 2,
        "current": 2,
        "completed": False,
        "ports": ["127.0.0.1:8000->80/tcp"],
        "after": {},
        "schedule": None,
        "next": None,
        "before": "web-1-3",
        "instances": ["shop-web-1", "shop-web-2"],
    }

    def answer(self, route: Any) -> None:
        """Answer as the API of stacks does, and keep what was asked."""
        asked = route.request
        path = asked.url.removeprefix(self.url)
        document = {"stack": "shop", "services": {}}
        if asked.method != "GET":
            self.asked.append((asked.method, path, asked.post_data_json))
        if asked.method == "GET" and path == "/stacks":
            told: Any = [{"stacks": self.stacks}]
        elif asked.method == "GET":
            told = [{"stack": "shop", "document": document, "services": [self.service]}]
        else:
            step = {
                "step": "launch",
                "service": "web",
                "instance": "shop-web-3",
                "text": "launch it",
            }
            told = [{"stack": "shop", "changes": ["web: replicas 2 -> 3"], "steps": [step]}]
        if path.endswith("wait=1"):
            told += [{"outcome": "failed", "wrong": ["web has failed"]}]
        route.fulfill(body="".join(f"{json.dumps(line)}\n" for line in told))

    def test_services(self) -> None:
        """They are shown with why; scaled, updated and rolled back; a change is shown before."""
        self.asked: list[Any] = []
        self.stacks: list[Any] = [{"stack": "shop", "services": [self.service]}]
        page = self.open()
        page.route(re.compile("/(stacks|services)(/|$|[?])"), self.answer)
        page.reload()
        page.get_by_role("link", name="Services").wait_for()
        page.keyboard.press("6")
        page.get_by_text("did not become healthy").wait_for()
        self.assert_accessible(page)
        self.assertNotIn("run", page.title())
        page.get_by_label("Replicas of shop-web").fill("3")
        other = self.service | {"service": "other-web", "stack": "other"}
        self.stacks.insert(0, {"stack": "other", "services": [other]})
        page.get_by_text("other-web").wait_for()  # what is typed stays meanwhile, and where it was
        del self.stacks[0]
        page.get_by_text("other-web").wait_for(state="detached")
        page.get_by_role("button", name="Scale").click()
        page.get_by_text("web has failed").wait_for()
        page.get_by_role("button", name="Close").click()
        page.get_by_label("Version of shop-web").fill("1.5")
        page.get_by_role("button", name="Update").click()
        page.get_by_text("web has failed").wait_for()
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Roll back to web-1-3").click()
        page.get_by_text("web has failed").wait_for()
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Change…").click()
        up = page.get_by_role("dialog").get_by_role("button", name="Up")
        self.assertTrue(up.is_disabled())
        page.get_by_role("button", name="What would change?").click()
        page.get_by_text("replicas 2 -> 3").wait_for()
        up.click()
        page.get_by_text("web has failed").wait_for()
        page.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="Down…").click()
        page.get_by_text("shop-web: shop-web-1, shop-web-2").wait_for()
        page.get_by_role("dialog").get_by_role("button", name="Down").click()
        page.get_by_text("web has failed").wait_for()
        document = {"stack": "shop", "services": {}}
        self.assertEqual(
            self.asked,
            [
                ("POST", "/services/shop-web/scale?wait=1", {"replicas": 3}),
                ("POST", "/services/shop-web/update?wait=1", {"major": "1", "minor": "5"}),
                ("POST", "/services/shop-web/rollback?wait=1", None),
                ("POST", "/stacks?dry_run=1", document),
                ("POST", "/stacks?wait=1", document),
                ("DELETE", "/stacks/shop?wait=1", None),
            ],
        )

    def work(self, page: Any) -> None:
        """Wait until what was begun is done, and close its dialog."""
        page.get_by_text("It is done.").wait_for()
        page.get_by_role("button", name="Close").click()

    def test_stack(self) -> None:
        """A real stack is put up from the page, scaled, updated, rolled back and taken down."""
        job = self.job(SERVER, network="host")
        for minor in ("1", "2"):
            config = self.config(**job) | {"name": "web", "minor": minor}
            self.assertEqual(self.ask("POST", "/config", config).status, 200)
        page = self.open("#/services")
        page.get_by_role("button", name="Up…").click()
        document = {"stack": "shop", "services": {"web": {"config": "web-1-1"}}}
        page.get_by_label("The stack").fill(json.dumps(document))
        page.get_by_role("button", name="What would change?").click()
        page.get_by_role("dialog").get_by_role("button", name="Up", exact=True).click()
        self.work(page)
        page.get_by_text("1 of 1 serve").wait_for()
        page.get_by_label("Replicas of shop-web").fill("2")
        page.get_by_role("button", name="Scale").click()
        self.work(page)
        page.get_by_text("2 of 2 serve").wait_for()
        page.get_by_label("Version of shop-web").fill("1.2")
        page.get_by_role("button", name="Update").click()
        self.work(page)
        page.get_by_role("button", name="Roll back to web-1-1").click()
        self.work(page)
        page.get_by_text("web-1-1", exact=True).wait_for()
        page.get_by_role("button", name="Down…").click()
        page.get_by_role("dialog").get_by_role("button", name="Down", exact=True).click()
        self.work(page)
        page.get_by_text("There is no stack.").wait_for()

"""The reports in headless Chromium: no error, no request to any network, no sideways scrolling."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import write_data, write_results, write_run

from trained_binarization.evidence.aggregate import aggregate
from trained_binarization.evidence.report import report_replication, report_study
from trained_binarization.study import Study

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory() as profile:
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def requested(driver: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


def test_reports_in_a_browser(house: Path, quick: Study, browser: Any) -> None:
    results = Path("results")
    write_results(quick, results)
    partial = Study.model_validate(quick.model_dump() | {"study": "partial"})
    write_data(partial, results)
    write_run(partial, next(partial.runs()), results)
    for study in (quick, partial):
        aggregate(study, results, Path("claims.yaml"))
        report_study(study, results, Path("claims.yaml"))
    report_replication(results, Path("claims.yaml"))
    pages = sorted(results.rglob("report.html"))
    assert len(pages) == 3
    for width in (1280, 390):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for page in pages:
            address = page.resolve().as_uri()
            browser.get("about:blank")
            browser.get_log("performance")  # of the browser's own start page
            browser.get(address)
            browser.execute_script("window.scrollTo(0, document.documentElement.scrollHeight)")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, (page, width)
            assert browser.execute_script("return document.images.length + document.scripts.length") == 0
            assert [url for url in requested(browser) if url != address and not url.startswith("data:")] == [], page
            assert browser.get_log("browser") == [], page

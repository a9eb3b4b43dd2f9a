"""Model states from deployment states."""

from ray.serve._private.common import DeploymentStatus, DeploymentStatusTrigger
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview, DeploymentStatusOverview

from graphs.status import model_states


def overview(**deployments: str) -> ApplicationStatusOverview:
    seen = {
        name.replace("__", "."): DeploymentStatusOverview(
            DeploymentStatus(status), DeploymentStatusTrigger.CONFIG_UPDATE_STARTED, {}, ""
        )
        for name, status in deployments.items()
    }
    return ApplicationStatusOverview(ApplicationStatus.DEPLOYING, "", 0.0, seen)


def test_a_model_is_ready_when_all_its_parts_are() -> None:
    seen = overview(
        a__detector="HEALTHY", a__recognizer="HEALTHY", b__detector="UPDATING", Gateway="UPDATING"
    )
    assert model_states(["a", "b", "c"], seen) == {"a": "ready", "b": "loading", "c": "loading"}


def test_a_model_that_scales_is_ready() -> None:
    seen = overview(a__detector="UPSCALING", a__recognizer="HEALTHY", b__detector="DOWNSCALING")
    assert model_states(["a", "b"], seen) == {"a": "ready", "b": "ready"}


def test_a_failed_part_fails_its_model() -> None:
    seen = overview(a__detector="HEALTHY", a__recognizer="DEPLOY_FAILED", b__detector="UNHEALTHY")
    assert model_states(["a", "b"], seen) == {"a": "failed", "b": "failed"}


def test_model_names_may_contain_dots() -> None:
    assert model_states(["v1.5"], overview(**{"v1.5.detector": "HEALTHY"})) == {"v1.5": "ready"}


def test_an_unknown_application_is_loading() -> None:
    assert model_states(["a"], None) == {"a": "loading"}

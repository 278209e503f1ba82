"""What an account may have at a time."""

import pytest
from botocore.exceptions import ClientError

from support import Hearth, wait_for
from test_access import allow, make_key  # noqa: F401 (a fixture)

ACCOUNT = "000000000402"


def test_a_build_beyond_the_concurrent_ones_is_402_until_one_has_ended(hearth, make_key):  # noqa: F811
    key = make_key(allow("*"), account=ACCOUNT)
    client, s3 = key.client(), key.client("s3")
    s3.create_bucket(Bucket="quota-builds")
    # It is found wanting in the builder only, seconds later.
    s3.put_object(Bucket="quota-builds", Key="app.zip", Body=Hearth.archive(elsewhere__Dockerfile="FROM scratch"))

    def create(name):
        return client.create_microvm_image(
            name=name, baseImageArn=hearth.base_arn(), buildRoleArn=f"arn:aws:iam::{ACCOUNT}:role/build",
            codeArtifact={"uri": "s3://quota-builds/app.zip"},
        )["imageArn"]

    state = lambda arn: client.get_microvm_image(imageIdentifier=arn)["state"]
    settled = lambda arn: wait_for("the build's end", lambda: state(arn).endswith("FAILED"), 300, 0.2)
    first = create("first")
    with pytest.raises(ClientError) as caught:
        create("second")
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == ("ServiceQuotaExceededException", 402)
    assert "maximum number of concurrent builds" in answer["Error"]["Message"]
    settled(first)
    second = create("second")
    settled(second)
    for arn in (first, second):
        client.delete_microvm_image(imageIdentifier=arn)
    s3.delete_object(Bucket="quota-builds", Key="app.zip")
    s3.delete_bucket(Bucket="quota-builds")

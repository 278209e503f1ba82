// The story of tests/test_api_clients.py, told by the AWS SDK for JavaScript. Prints one JSON document.
const sdk = require("@aws-sdk/client-lambda-microvms");

const client = new sdk.LambdaMicrovmsClient({ endpoint: process.env.AWS_ENDPOINT_URL, maxAttempts: 5 });
const given = JSON.parse(process.argv[2]);
const call = (name, input = {}) => client.send(new sdk[`${name}Command`](input));
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(get, ...wanted) {
  for (const end = Date.now() + 120_000; Date.now() < end; await pause(200)) {
    const { state } = await get();
    if (wanted.includes(state)) return state;
  }
  throw new Error(`not within 120 s: ${wanted}`);
}

async function errorOf(promise) {
  try {
    await promise;
    return null;
  } catch (error) {
    return [error.name, error.$metadata.httpStatusCode];
  }
}

async function images(told) {
  const { items } = await call("ListManagedMicrovmImages");
  told.managed = items.map((item) => item.imageArn);
  const managed = await call("ListManagedMicrovmImageVersions", { imageIdentifier: items[0].imageArn });
  told.managedVersions = managed.items.map((version) => version.imageVersion);
  const specification = {
    baseImageArn: items[0].imageArn, buildRoleArn: given.role, codeArtifact: { uri: given.nowhere },
    environmentVariables: { A: "1" },
  };
  const made = await call("CreateMicrovmImage", { ...specification, name: given.name });
  const imageIdentifier = made.imageArn;
  told.created = [made.state, made.imageVersion, made.resources[0].minimumMemoryInMiB, made.createdAt instanceof Date];
  const listed = await call("ListMicrovmImages", { nameFilter: given.name });
  told.listed = listed.items.map((item) => item.imageArn === imageIdentifier);
  told.failed = await until(() => call("GetMicrovmImage", { imageIdentifier }), "CREATE_FAILED");
  const builds = await call("ListMicrovmImageBuilds", { imageIdentifier, imageVersion: "1.0" });
  told.reason = builds.items[0].stateReason.split(":")[0];
  const { buildId } = builds.items[0];
  const build = await call("GetMicrovmImageBuild", { imageIdentifier, imageVersion: "1.0", buildId });
  told.build = [build.buildState, build.architecture];
  told.updated = (await call("UpdateMicrovmImage", { ...specification, imageIdentifier })).imageVersion;
  await until(() => call("GetMicrovmImage", { imageIdentifier }), "UPDATE_FAILED");
  const version = await call("GetMicrovmImageVersion", { imageIdentifier, imageVersion: "2.0" });
  told.version = [version.state, version.status, version.environmentVariables];
  await call("DeleteMicrovmImageVersion", { imageIdentifier, imageVersion: "1.0" });
  told.versions = [];
  for await (const page of sdk.paginateListMicrovmImageVersions({ client, pageSize: 1 }, { imageIdentifier })) {
    told.versions.push(...page.items.map((version) => version.imageVersion));
  }
  await call("TagResource", { Resource: imageIdentifier, Tags: { a: "1", b: "2" } });
  await call("UntagResource", { Resource: imageIdentifier, TagKeys: ["b"] });
  told.tags = (await call("ListTags", { Resource: imageIdentifier })).Tags;
  told.deleted = (await call("DeleteMicrovmImage", { imageIdentifier })).state;
  told.missing = await errorOf(call("GetMicrovmImage", { imageIdentifier: `${imageIdentifier}-none` }));
  told.invalid = await errorOf(call("CreateMicrovmImage", { ...specification, name: "bad name!" }));
}

async function microvms(told) {
  const imageIdentifier = given.image;
  const made = await call("RunMicrovm", { imageIdentifier, ingressNetworkConnectors: given.connectors });
  const microvmIdentifier = made.microvmId;
  const get = () => call("GetMicrovm", { microvmIdentifier });
  told.launched = [made.state, made.maximumDurationInSeconds];
  told.states = [await until(get, "RUNNING")];
  told.found = [];
  for await (const page of sdk.paginateListMicrovms({ client }, { imageIdentifier })) {
    told.found.push(...page.items.filter((item) => item.microvmId === microvmIdentifier).map((item) => item.state));
  }
  const changed = { imageIdentifier, imageVersion: made.imageVersion, status: "ACTIVE" };
  const version = await call("UpdateMicrovmImageVersion", changed);
  told.activated = [version.state, version.status];
  const allowedPorts = [{ port: 8080 }, { allPorts: {} }];
  const token = await call("CreateMicrovmAuthToken", { microvmIdentifier, expirationInMinutes: 5, allowedPorts });
  told.token = Object.keys(token.authToken);
  const shellToken = await call("CreateMicrovmShellAuthToken", { microvmIdentifier, expirationInMinutes: 5 });
  told.shellToken = Object.keys(shellToken.authToken);
  await call("SuspendMicrovm", { microvmIdentifier });
  told.states.push(await until(get, "SUSPENDED"));
  await call("ResumeMicrovm", { microvmIdentifier });
  told.states.push(await until(get, "RUNNING"));
  await call("TerminateMicrovm", { microvmIdentifier });
  told.states.push(await until(get, "TERMINATED"));
}

(async () => {
  const told = {};
  await images(told);
  await microvms(told);
  console.log(JSON.stringify(told));
})();

//! The members of every operation, as in the service model (spec 4.2), in the order in which violations are reported.

use super::{Member, Place, Shape};
use crate::enums::{
    Architecture, Capability, Chipset, ComputeResourceType, ConnectorState, ElasticIpType, HookState,
    MicrovmImageVersionStatus, NetworkProtocol,
};

const NON_BLANK: Shape = Shape::matching(1, 2048, r"[^\s]+");
const IMAGE_NAME: Shape = Shape::matching(1, 64, "[a-zA-Z0-9-_]+");
const IDENTIFIER: Shape = Shape::text(1, 256);
const ROLE_ARN: Shape = Shape::matching(
    20,
    2048,
    r"arn:aws[a-z\-]*:iam::[0-9]{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
);
const CLIENT_TOKEN: Shape = Shape::text(1, 128);
const CONNECTOR: Shape = Shape::text(1, 2048);
const EMPTY: Shape = Shape::Structure(&[]);
const ARCHITECTURE: Shape = Shape::Enum(Architecture::NAMES);
const HOOK_STATE: Shape = Shape::Enum(HookState::NAMES);
const PORT: Shape = Shape::between(1, 65535);

const LOGGING: Shape = Shape::Union(&[
    Member::new("disabled", &EMPTY),
    Member::new(
        "cloudWatch",
        &Shape::Structure(&[
            Member::new("logGroup", &Shape::matching(1, 512, r"[a-zA-Z0-9_\-/.#]+")),
            Member::new("logStream", &Shape::matching(1, 512, "[^:*]*")),
        ]),
    ),
]);

const RUNTIME_HOOK_TIMEOUT: Shape = Shape::between(1, 60);
const BUILD_HOOK_TIMEOUT: Shape = Shape::between(1, 3600);
const HOOKS: Shape = Shape::Structure(&[
    Member::new("port", &PORT),
    Member::new(
        "microvmHooks",
        &Shape::Structure(&[
            Member::new("run", &HOOK_STATE),
            Member::new("runTimeoutInSeconds", &RUNTIME_HOOK_TIMEOUT),
            Member::new("resume", &HOOK_STATE),
            Member::new("resumeTimeoutInSeconds", &RUNTIME_HOOK_TIMEOUT),
            Member::new("suspend", &HOOK_STATE),
            Member::new("suspendTimeoutInSeconds", &RUNTIME_HOOK_TIMEOUT),
            Member::new("terminate", &HOOK_STATE),
            Member::new("terminateTimeoutInSeconds", &RUNTIME_HOOK_TIMEOUT),
        ]),
    ),
    Member::new(
        "microvmImageHooks",
        &Shape::Structure(&[
            Member::new("ready", &HOOK_STATE),
            Member::new("readyTimeoutInSeconds", &BUILD_HOOK_TIMEOUT),
            Member::new("validate", &HOOK_STATE),
            Member::new("validateTimeoutInSeconds", &BUILD_HOOK_TIMEOUT),
        ]),
    ),
]);

const KMS_KEY: Shape = Shape::matching(
    1,
    2048,
    concat!(
        r"(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[a-zA-Z0-9:/_-]+|",
        r"alias/[a-zA-Z0-9:/_-]+|[a-zA-Z0-9-]+)"
    ),
);

const ENVIRONMENT: Shape = Shape::Map {
    max: Some(100),
    key: &Shape::matching(1, 256, r"[^\s]+"),
    value: &Shape::secret(0, 4096),
};

const TAG_PATTERN: &str = r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)";
const TAG_KEY: Shape = Shape::matching(1, 128, TAG_PATTERN);
const TAGS: Shape = Shape::Map {
    max: None,
    key: &TAG_KEY,
    value: &Shape::matching(0, 256, TAG_PATTERN),
};
const TAGGABLE: Shape = Shape::matching(
    1,
    10000,
    concat!(
        r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:",
        r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)|",
        r"code-signing-config:csc-[a-z0-9]{17}|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-",
        r"[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}|",
        r"(capacity-provider|network-connector|microvm-image):[a-zA-Z0-9-_]+)"
    ),
);

/// The members of an image specification, followed by the operation's own.
macro_rules! specification {
    ($($own:expr),+ $(,)?) => {
        &[
            Member::new("baseImageArn", &NON_BLANK).required(),
            Member::new("codeArtifact", &Shape::Union(&[Member::new("uri", &NON_BLANK)])).required(),
            Member::new("buildRoleArn", &ROLE_ARN).required(),
            $($own,)+
            Member::new("baseImageVersion", &NON_BLANK),
            Member::new("description", &Shape::ANY_TEXT),
            Member::new("logging", &LOGGING),
            Member::new("egressNetworkConnectors", &Shape::List { min: 0, max: Some(1), item: &CONNECTOR }),
            Member::new(
                "cpuConfigurations",
                &Shape::List {
                    min: 0,
                    max: None,
                    item: &Shape::Structure(&[Member::new("architecture", &ARCHITECTURE).required()]),
                },
            ),
            Member::new(
                "resources",
                &Shape::List {
                    min: 0,
                    max: Some(1),
                    item: &Shape::Structure(&[
                        Member::new("minimumMemoryInMiB", &Shape::Integer { min: None, max: None }).required(),
                    ]),
                },
            ),
            Member::new(
                "additionalOsCapabilities",
                &Shape::List { min: 0, max: None, item: &Shape::Enum(Capability::NAMES) },
            ),
            Member::new("hooks", &HOOKS),
            Member::new("environmentVariables", &ENVIRONMENT),
            Member::new("kmsKeyIdentifier", &KMS_KEY),
            Member::new("clientToken", &CLIENT_TOKEN),
        ]
    };
}

const IMAGE: Member = Member::path("imageIdentifier", &IDENTIFIER);
const VERSION: Member = Member::path("imageVersion", &NON_BLANK);
const MICROVM: Member = Member::path("microvmIdentifier", &IDENTIFIER);
const MAX_RESULTS: Member = Member::query("maxResults", &Shape::between(1, 50));
const NEXT_TOKEN: Member = Member::query("nextToken", &Shape::ANY_TEXT);
const EXPIRATION: Member = Member::new("expirationInMinutes", &Shape::at_least(1)).required();
const RESOURCE: Member = Member::path("Resource", &TAGGABLE);
const CONNECTORS: Shape = Shape::List {
    min: 0,
    max: Some(10),
    item: &CONNECTOR,
};

pub(crate) const NOTHING: &[Member] = &[];
pub(crate) const LIST: &[Member] = &[MAX_RESULTS, NEXT_TOKEN];
pub(crate) const LIST_OF_IMAGE: &[Member] = &[IMAGE, MAX_RESULTS, NEXT_TOKEN];
pub(crate) const ONE_IMAGE: &[Member] = &[IMAGE];
pub(crate) const ONE_VERSION: &[Member] = &[IMAGE, VERSION];
pub(crate) const ONE_BUILD: &[Member] = &[IMAGE, VERSION, Member::path("buildId", &NON_BLANK)];
pub(crate) const ONE_MICROVM: &[Member] = &[MICROVM];

pub(crate) const CREATE_MICROVM_IMAGE: &[Member] = specification![
    Member::new("name", &IMAGE_NAME).required(),
    Member::new("tags", &TAGS)
];
pub(crate) const UPDATE_MICROVM_IMAGE: &[Member] = specification![IMAGE];
pub(crate) const LIST_MICROVM_IMAGES: &[Member] =
    &[Member::query("nameFilter", &NON_BLANK), MAX_RESULTS, NEXT_TOKEN];
pub(crate) const UPDATE_MICROVM_IMAGE_VERSION: &[Member] = &[
    IMAGE,
    VERSION,
    Member::new("status", &Shape::Enum(MicrovmImageVersionStatus::NAMES)).required(),
];
pub(crate) const LIST_MICROVM_IMAGE_BUILDS: &[Member] = &[
    IMAGE,
    VERSION,
    Member::query("architecture", &ARCHITECTURE),
    Member::query("chipset", &Shape::Enum(Chipset::NAMES)),
    Member::query("chipsetGeneration", &NON_BLANK),
    MAX_RESULTS,
    NEXT_TOKEN,
];
pub(crate) const RUN_MICROVM: &[Member] = &[
    Member::new("imageIdentifier", &IDENTIFIER).required(),
    Member::new("imageVersion", &NON_BLANK),
    Member::new("executionRoleArn", &ROLE_ARN),
    Member::new(
        "idlePolicy",
        &Shape::Structure(&[
            Member::new("maxIdleDurationSeconds", &Shape::at_least(60)).required(),
            Member::new("suspendedDurationSeconds", &Shape::at_least(0)).required(),
            Member::new("autoResumeEnabled", &Shape::Boolean).required(),
        ]),
    ),
    Member::new("logging", &LOGGING),
    Member::new("kmsKeyIdentifier", &KMS_KEY),
    Member::new("runHookPayload", &Shape::secret(0, 4096)),
    Member::new("maximumDurationInSeconds", &Shape::between(1, 28800)),
    Member::new("ingressNetworkConnectors", &CONNECTORS),
    Member::new("egressNetworkConnectors", &CONNECTORS),
    Member::new("clientToken", &CLIENT_TOKEN),
];
pub(crate) const LIST_MICROVMS: &[Member] = &[
    Member::query("imageIdentifier", &IDENTIFIER),
    Member::query("imageVersion", &Shape::ANY_TEXT),
    MAX_RESULTS,
    NEXT_TOKEN,
];
pub(crate) const CREATE_MICROVM_AUTH_TOKEN: &[Member] = &[
    MICROVM,
    EXPIRATION,
    Member::new(
        "allowedPorts",
        &Shape::List {
            min: 1,
            max: None,
            item: &Shape::Union(&[
                Member::new("port", &PORT),
                Member::new(
                    "range",
                    &Shape::Structure(&[
                        Member::new("startPort", &PORT).required(),
                        Member::new("endPort", &PORT).required(),
                    ]),
                ),
                Member::new("allPorts", &EMPTY),
            ]),
        },
    )
    .required(),
];
pub(crate) const CREATE_MICROVM_SHELL_AUTH_TOKEN: &[Member] = &[MICROVM, EXPIRATION];
pub(crate) const TAG_RESOURCE: &[Member] = &[RESOURCE, Member::new("Tags", &TAGS).required()];
pub(crate) const UNTAG_RESOURCE: &[Member] = &[
    RESOURCE,
    Member {
        name: "TagKeys",
        place: Place::Query("tagKeys"),
        required: true,
        shape: &Shape::List {
            min: 0,
            max: None,
            item: &TAG_KEY,
        },
    },
];
pub(crate) const LIST_TAGS: &[Member] = &[RESOURCE];
pub(crate) const IMPORT_BASE: &[Member] = &[
    Member::new("archiveUri", &NON_BLANK).required(),
    Member::new("name", &NON_BLANK).required(),
];

const ACCOUNT: Shape = Shape::matching(12, 12, "[0-9]{12}");
const PRINCIPAL_NAME: Shape = Shape::matching(1, 64, "[a-zA-Z0-9+=,.@_-]+");
const POLICY: Shape = Shape::text(1, 10240);
const OF: Member = Member::query("account", &ACCOUNT);

pub(crate) const OF_ACCOUNT: &[Member] = &[OF];
pub(crate) const CREATE_KEY: &[Member] = &[
    Member::new("account", &ACCOUNT),
    Member::new("userName", &PRINCIPAL_NAME),
    Member::new("administrator", &Shape::Boolean),
    Member::new("policy", &POLICY),
];
pub(crate) const REVOKE_KEY: &[Member] = &[
    Member::path("accessKeyId", &Shape::matching(16, 128, "[a-zA-Z0-9]+")),
    OF,
];
pub(crate) const CREATE_ROLE: &[Member] = &[
    Member::new("account", &ACCOUNT),
    Member::new("name", &PRINCIPAL_NAME).required(),
    Member::new("policy", &POLICY).required(),
];
pub(crate) const DELETE_ROLE: &[Member] = &[Member::path("name", &PRINCIPAL_NAME), OF];
pub(crate) const GET_USAGE: &[Member] = &[
    OF,
    Member::query("from", &Shape::at_least(0)),
    Member::query("to", &Shape::at_least(0)),
];
pub(crate) const LIST_AUDIT: &[Member] = &[
    OF,
    Member::query("from", &Shape::at_least(0)),
    Member::query("to", &Shape::at_least(0)),
    Member::query("who", &Shape::text(1, 256)),
    Member::query("what", &Shape::text(1, 256)),
    Member::query("outcome", &Shape::Enum(&["FAILED", "SUCCEEDED"])),
    Member::query("maxResults", &Shape::between(1, 1000)),
    NEXT_TOKEN,
];

const CONNECTOR_IDENTIFIER: Member = Member::path("Identifier", &Shape::text(1, 140));
const CONNECTOR_NAME: Shape = Shape::matching(
    1,
    140,
    concat!(
        r"(arn:aws[a-zA-Z-]*:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:",
        r"network-connector:[a-zA-Z0-9-_]+(:[1-9][0-9]*)?)|[a-zA-Z0-9_-]{1,64}"
    ),
);
const OPERATOR_ROLE: Shape = Shape::matching(
    0,
    10000,
    r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
);
const CONNECTOR_TOKEN: Shape = Shape::text(1, 64);
const CONNECTOR_CONFIGURATION: Shape = Shape::Union(&[Member::new(
    "VpcEgressConfiguration",
    &Shape::Structure(&[
        Member::new(
            "SubnetIds",
            &Shape::List {
                min: 1,
                max: Some(16),
                item: &Shape::matching(0, 1024, "subnet-[0-9a-z]*"),
            },
        ),
        Member::new(
            "SecurityGroupIds",
            &Shape::List {
                min: 0,
                max: Some(16),
                item: &Shape::matching(0, 1024, "sg-[0-9a-zA-Z]*"),
            },
        ),
        Member::new("NetworkProtocol", &Shape::Enum(NetworkProtocol::NAMES)),
        Member::new(
            "AssociatedComputeResourceTypes",
            &Shape::List {
                min: 1,
                max: Some(1),
                item: &Shape::Enum(ComputeResourceType::NAMES),
            },
        ),
        Member::new(
            "ElasticIpConfiguration",
            &Shape::Structure(&[Member::new("Type", &Shape::Enum(ElasticIpType::NAMES)).required()]),
        ),
    ]),
)]);
const CONNECTOR_STATE: Member = Member::query("State", &Shape::Enum(ConnectorState::NAMES));
const MARKER: Member = Member::query("Marker", &Shape::ANY_TEXT);
const MAX_ITEMS: Member = Member::query("MaxItems", &Shape::between(1, 100));

pub(crate) const CREATE_NETWORK_CONNECTOR: &[Member] = &[
    Member::new("Name", &CONNECTOR_NAME).required(),
    Member::new("Configuration", &CONNECTOR_CONFIGURATION).required(),
    Member::new("OperatorRole", &OPERATOR_ROLE),
    Member::new("ClientToken", &CONNECTOR_TOKEN),
    Member::new("Tags", &TAGS),
];
pub(crate) const UPDATE_NETWORK_CONNECTOR: &[Member] = &[
    CONNECTOR_IDENTIFIER,
    Member::new("Configuration", &CONNECTOR_CONFIGURATION),
    Member::new("OperatorRole", &OPERATOR_ROLE),
    Member::new("ClientToken", &CONNECTOR_TOKEN),
];
pub(crate) const ONE_CONNECTOR: &[Member] = &[CONNECTOR_IDENTIFIER];
pub(crate) const LIST_CONNECTORS: &[Member] = &[CONNECTOR_STATE, MARKER, MAX_ITEMS];
pub(crate) const LIST_CONNECTOR_VERSIONS: &[Member] =
    &[CONNECTOR_IDENTIFIER, CONNECTOR_STATE, MARKER, MAX_ITEMS];

BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE aliases (
	name VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "aliases" VALUES('older','old');
CREATE TABLE audits (
	seq INTEGER NOT NULL, 
	record VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	upstream VARCHAR, 
	status INTEGER, 
	answer BLOB, 
	failure VARCHAR, 
	prompt_tokens INTEGER, 
	completion_tokens INTEGER, 
	cost_usd FLOAT, 
	latency_ms FLOAT, 
	PRIMARY KEY (seq), 
	UNIQUE (record)
);
INSERT INTO "audits" VALUES(1,'rec_2',1002.0,'default',200,X'7B226964223A226332222C2263686F69636573223A5B7B226D657373616765223A7B22636F6E74656E74223A2263227D7D5D7D',NULL,10,2,0.001,9.0);
CREATE TABLE datasets (
	digest VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	rows INTEGER NOT NULL, 
	manifest BLOB NOT NULL, 
	PRIMARY KEY (digest, task)
);
INSERT INTO "datasets" VALUES('d','old',1.79536478830487751957e+09,1,X'789C1D8C310AC0201004FFB2751A5BBF22128E78188951519346FC7BCE1453CCB0EC40A776412347870D2E786E5D74490C891BB431A87CEC4A0A0B24F44A21FD8B77A5F3B969A957B0564E6A2E851DF498F303759C1D37');
CREATE TABLE events (
	seq INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	task VARCHAR, 
	kind VARCHAR, 
	what VARCHAR NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "events" VALUES(1,1.79536478809981322286e+09,'old','task','started in observe');
INSERT INTO "events" VALUES(2,1.79536478813175702094e+09,'old','release','old@1 released');
CREATE TABLE found (
	task VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE imports (
	digest VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	path VARCHAR NOT NULL, 
	line INTEGER NOT NULL, 
	"offset" INTEGER NOT NULL, 
	done_at FLOAT, 
	PRIMARY KEY (digest, task)
);
CREATE TABLE ledger (
	task VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	delta FLOAT NOT NULL, 
	calibration VARCHAR NOT NULL, 
	PRIMARY KEY (task, attempt)
);
INSERT INTO "ledger" VALUES('old',1,1.79536478815731644631e+09,0.025,'digest');
CREATE TABLE members (
	seq INTEGER NOT NULL, 
	pattern INTEGER NOT NULL, 
	coin INTEGER NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "members" VALUES(1,1,5);
INSERT INTO "members" VALUES(2,1,6);
CREATE TABLE meta (
	"key" VARCHAR NOT NULL, 
	value VARCHAR NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('keeper_place','2');
CREATE TABLE patterns (
	id INTEGER NOT NULL, 
	"key" VARCHAR NOT NULL, 
	rule TEXT, 
	parent INTEGER, 
	label VARCHAR, 
	matcher VARCHAR, 
	least FLOAT, 
	task VARCHAR, 
	decided BOOLEAN NOT NULL, 
	ignored BOOLEAN NOT NULL, 
	at FLOAT NOT NULL, 
	records INTEGER NOT NULL, 
	whole INTEGER NOT NULL, 
	prompt_tokens INTEGER NOT NULL, 
	completion_tokens INTEGER NOT NULL, 
	cost_usd FLOAT NOT NULL, 
	unpriced INTEGER NOT NULL, 
	first_at FLOAT, 
	last_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE ("key")
);
INSERT INTO "patterns" VALUES(1,'k',NULL,NULL,'old',NULL,NULL,'old',0,0,1000.0,2,2,10,2,0.001,0,NULL,NULL);
CREATE TABLE records (
	seq INTEGER NOT NULL, 
	id VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	source VARCHAR NOT NULL, 
	dialect VARCHAR NOT NULL, 
	task VARCHAR, 
	rule VARCHAR, 
	model VARCHAR NOT NULL, 
	upstream VARCHAR, 
	route VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	stage VARCHAR, 
	release VARCHAR, 
	score FLOAT, 
	threshold FLOAT, 
	predicted TEXT, 
	acceptable BOOLEAN, 
	watch INTEGER, 
	coin FLOAT, 
	audited BOOLEAN, 
	stakes VARCHAR, 
	status INTEGER, 
	failure VARCHAR, 
	prompt_tokens INTEGER, 
	completion_tokens INTEGER, 
	tokens_estimated BOOLEAN NOT NULL, 
	cost_usd FLOAT, 
	latency_ms FLOAT, 
	first_chunk_ms FLOAT, 
	streamed BOOLEAN NOT NULL, 
	session VARCHAR, 
	"group" VARCHAR, 
	slices VARCHAR NOT NULL, 
	input TEXT, 
	request BLOB, 
	answer BLOB, 
	response_id VARCHAR, 
	schema INTEGER NOT NULL, 
	PRIMARY KEY (seq), 
	UNIQUE (id)
);
INSERT INTO "records" VALUES(1,'rec_1',1000.0,'live','chat','old',NULL,'m','default','frontier','no_task',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,200,NULL,10,2,0,0.001,12.5,NULL,0,'s1','g1','','hello',X'7B226D6F64656C223A226D222C226D65737361676573223A5B7B22726F6C65223A2273797374656D222C22636F6E74656E74223A226C6162656C206974227D2C7B22726F6C65223A2275736572222C22636F6E74656E74223A2268656C6C6F227D5D7D',X'7B226964223A226331222C2263686F69636573223A5B7B226D657373616765223A7B22636F6E74656E74223A2261227D7D5D7D','c1',3);
INSERT INTO "records" VALUES(2,'rec_2',1001.0,'live','chat','old',NULL,'m',NULL,'specialist','accepted','live','old@1',0.9,0.5,'"a"',1,1,0.5,1,'1.0',200,NULL,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL,'x,y','bye',X'7B226D6F64656C223A226D222C226D65737361676573223A5B7B22726F6C65223A2273797374656D222C22636F6E74656E74223A226C6162656C206974227D2C7B22726F6C65223A2275736572222C22636F6E74656E74223A22627965227D5D7D',X'7B226964223A22737566666963652D31222C2263686F69636573223A5B7B226D657373616765223A7B22636F6E74656E74223A2261227D7D5D7D',NULL,3);
CREATE TABLE releases (
	task VARCHAR NOT NULL, 
	n INTEGER NOT NULL, 
	digest VARCHAR NOT NULL, 
	release TEXT NOT NULL, 
	serving TEXT NOT NULL, 
	pinned TEXT, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (task, n)
);
INSERT INTO "releases" VALUES('old',1,'x','{"type":"release","draft":{"task":"old","recipe":{"family":"linear","seed":0,"params":{}},"contract":{"type":"choice","values":["a"]},"dataset":"d","artefact":"a","threshold":{"score":0.5,"certificate":{"max_error":0.02,"confidence":0.95,"attempt":1,"delta":0.025,"n":10,"method":"m","p_value":0.01,"threshold":0.5,"coverage":0.9,"promise":"agreement","reference":"frontier","at":0.0,"loss":"exact","window":null,"max_slice_error":null}},"slices":[],"closed_slices":[]},"tail":{"promised":false,"max_tail_error":0.2,"error":{"value":0.9,"low":0.8,"high":1.0,"n":10},"labels_missing":1},"report":{"accuracy":{"value":0.9,"low":0.8,"high":1.0,"n":10},"coverage":{"value":0.9,"low":0.8,"high":1.0,"n":10},"accepted_error":{"value":0.9,"low":0.8,"high":1.0,"n":10},"frontier_error":null,"worse":null,"unseen_coverage":{"value":0.9,"low":0.8,"high":1.0,"n":10},"unseen_error":{"value":0.9,"low":0.8,"high":1.0,"n":10},"latency_p50_ms":1.0,"latency_p99_ms":2.0,"disagreement":null,"band_upper":null,"net_loss":null,"cvar":null,"slices":[],"memory_mb":null}}','{"prompt":null,"style":{"kind":"text","indent":null,"item":", ","colon":": ","ascii":false,"before":"","after":"","labels":{},"keys":{},"absent":{},"sets":{},"decimals":{},"inline":false},"confidences":[]}',NULL,1.79536478813050627708e+09);
CREATE TABLE routing (
	id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "routing" VALUES(1,3);
CREATE TABLE runs (
	seq INTEGER NOT NULL, 
	task VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	"key" VARCHAR NOT NULL, 
	exit INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "runs" VALUES(1,'old',1.79536478819287085529e+09,'key',0,'{"release":"old@1"}');
CREATE TABLE splits (
	task VARCHAR NOT NULL, 
	example VARCHAR NOT NULL, 
	split VARCHAR NOT NULL, 
	PRIMARY KEY (task, example)
);
INSERT INTO "splits" VALUES('old','rec_1','train');
CREATE TABLE steps (
	record VARCHAR NOT NULL, 
	task VARCHAR NOT NULL, 
	watch INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	coin FLOAT NOT NULL, 
	stakes VARCHAR NOT NULL, 
	differs FLOAT, 
	loss FLOAT, 
	missing BOOLEAN NOT NULL, 
	PRIMARY KEY (record)
);
INSERT INTO "steps" VALUES('rec_2','old',1,1001.0,0.5,'1.0',1.0,NULL,0);
CREATE TABLE tails (
	task VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	release INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	delta FLOAT NOT NULL, 
	labels INTEGER NOT NULL, 
	errors FLOAT NOT NULL, 
	promised BOOLEAN NOT NULL, 
	PRIMARY KEY (task, attempt)
);
CREATE TABLE tasks (
	name VARCHAR NOT NULL, 
	stage VARCHAR NOT NULL, 
	release INTEGER, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "tasks" VALUES('old','observe',1,1.79536478809963250162e+09);
CREATE TABLE trusted (
	seq INTEGER NOT NULL, 
	record VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	value TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "trusted" VALUES(1,'rec_1','human','"b"',1.79536478808174824713e+09);
CREATE TABLE watches (
	task VARCHAR NOT NULL, 
	n INTEGER NOT NULL, 
	release INTEGER NOT NULL, 
	opened_at FLOAT NOT NULL, 
	closed_at FLOAT, 
	outcome VARCHAR, 
	state TEXT NOT NULL, 
	PRIMARY KEY (task, n)
);
INSERT INTO "watches" VALUES('old',1,1,1000.5,NULL,NULL,'{}');
CREATE INDEX records_response_id ON records (response_id);
CREATE INDEX records_task_at ON records (task, at);
CREATE INDEX records_at ON records (at);
CREATE INDEX records_watch ON records (seq) WHERE watch IS NOT NULL;
CREATE INDEX ix_trusted_record ON trusted (record);
CREATE INDEX ix_runs_task ON runs (task);
CREATE INDEX steps_watch ON steps (task, watch, loss);
CREATE INDEX patterns_task ON patterns (task);
CREATE INDEX members_pattern ON members (pattern, coin);
CREATE INDEX datasets_task ON datasets (task, at);
COMMIT;

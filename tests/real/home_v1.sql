BEGIN TRANSACTION;
CREATE TABLE events (
	seq INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	task VARCHAR, 
	what VARCHAR NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "events" VALUES(1,1.79532756284625172622e+09,'old','started in observe');
CREATE TABLE ledger (
	task VARCHAR NOT NULL, 
	attempt INTEGER NOT NULL, 
	at FLOAT NOT NULL, 
	delta FLOAT NOT NULL, 
	calibration VARCHAR NOT NULL, 
	PRIMARY KEY (task, attempt)
);
CREATE TABLE meta (
	"key" VARCHAR NOT NULL, 
	value VARCHAR NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('schema','1');
CREATE TABLE records (
	id VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	source VARCHAR NOT NULL, 
	dialect VARCHAR NOT NULL, 
	task VARCHAR, 
	model VARCHAR NOT NULL, 
	upstream VARCHAR, 
	route VARCHAR NOT NULL, 
	reason VARCHAR NOT NULL, 
	stage VARCHAR, 
	release VARCHAR, 
	score FLOAT, 
	threshold FLOAT, 
	coin FLOAT, 
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
	PRIMARY KEY (id)
);
INSERT INTO "records" VALUES('imp_10f811a24ba91dd30000000160021615',1.79532756284556651118e+09,'import','short','old','',NULL,'frontier','no_task',NULL,NULL,NULL,NULL,NULL,200,NULL,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL,'','hello',X'7B22696E707574223A2268656C6C6F227D',X'226122',NULL,1);
INSERT INTO "records" VALUES('imp_10f811a24ba91dd30000000260021615',1.79532756284556651118e+09,'import','short','old','',NULL,'frontier','no_task',NULL,NULL,NULL,NULL,NULL,200,NULL,NULL,NULL,0,NULL,NULL,NULL,0,NULL,NULL,'','bye',X'7B22696E707574223A22627965227D',X'226322',NULL,1);
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
CREATE TABLE routing (
	id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "routing" VALUES(1,2);
CREATE TABLE runs (
	seq INTEGER NOT NULL, 
	task VARCHAR NOT NULL, 
	at FLOAT NOT NULL, 
	"key" VARCHAR NOT NULL, 
	exit INTEGER NOT NULL, 
	document TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
CREATE TABLE splits (
	task VARCHAR NOT NULL, 
	example VARCHAR NOT NULL, 
	split VARCHAR NOT NULL, 
	PRIMARY KEY (task, example)
);
CREATE TABLE tasks (
	name VARCHAR NOT NULL, 
	stage VARCHAR NOT NULL, 
	release INTEGER, 
	created_at FLOAT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "tasks" VALUES('old','observe',NULL,1.79532756284618830676e+09);
CREATE TABLE trusted (
	seq INTEGER NOT NULL, 
	record VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	value TEXT NOT NULL, 
	at FLOAT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "trusted" VALUES(1,'imp_10f811a24ba91dd30000000160021615','human','"b"',1.79532756284940075877e+09);
CREATE INDEX records_at ON records (at);
CREATE INDEX records_response_id ON records (response_id);
CREATE INDEX records_task_at ON records (task, at);
CREATE INDEX ix_trusted_record ON trusted (record);
CREATE INDEX ix_runs_task ON runs (task);
COMMIT;

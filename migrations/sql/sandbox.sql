-- The payment double's own state: what a provider would hold on its side. The console's role reaches it, no other.
create schema sandbox;

create table sandbox.account (
  id text primary key,
  created_at timestamptz not null default now(),
  body jsonb not null
);

create table sandbox.object (
  account text not null references sandbox.account (id),
  id text not null,
  kind text not null,
  created bigint not null,
  body jsonb not null,
  primary key (account, id)
);

create index ix_object_kind on sandbox.object (account, kind, created);

create table sandbox.idempotency (
  account text not null,
  key text not null,
  request text not null,
  status integer not null,
  body jsonb not null,
  created_at timestamptz not null default now(),
  primary key (account, key)
);

create table sandbox.delivery (
  id uuid primary key default uuidv7(),
  event jsonb not null,
  due_at timestamptz not null default now(),
  attempts integer not null default 0
);

create table sandbox.setting (name text primary key, value jsonb not null);

grant usage on schema sandbox to platform_rw;

grant select, insert, update, delete on all tables in schema sandbox to platform_rw;

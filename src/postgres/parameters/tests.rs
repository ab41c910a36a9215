//! Which parameters of libpq are read, and which are refused.

use tokio_postgres::config::Host;

use super::*;
use crate::postgres::tls::Verify;

fn faults(text: &str) -> Vec<String> {
    connection(text).err().unwrap_or_default()
}

fn config(text: &str) -> Config {
    connection(text)
        .map_err(|faults| faults.join("; "))
        .unwrap()
        .hosts
        .remove(0)
}

#[test]
fn each_host_has_a_configuration_of_its_own() {
    let hosts = connection("host=a,/run/b,c hostaddr=::1,::2,::3 port=1,,3").ok();
    let hosts = hosts.unwrap().hosts;
    let found: Vec<_> = hosts
        .iter()
        .map(|host| {
            (
                host.get_hosts().len(),
                host.get_ports(),
                host.get_hostaddrs()[0],
            )
        })
        .collect();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(
        found,
        [
            (1, &[1][..], address("::1")),
            (1, &[5432][..], address("::2")),
            (1, &[3][..], address("::3")),
        ]
    );
    assert_eq!(hosts[1].get_hosts(), [Host::Unix("/run/b".into())]);
    let one_port = connection("host=a,b port=9").ok().unwrap().hosts;
    assert!(one_port.iter().all(|host| host.get_ports() == [9]));
}

#[test]
fn an_unknown_parameter_is_named_with_all_that_is_wrong() {
    let found = faults("postgres://u:geheim@h/db?sslmod=require&port=0&service=x&sslmode=maybe");
    assert_eq!(found.len(), 4, "{found:?}");
    for name in [
        "sslmod is not",
        "port must be 1",
        "service is not supported",
        "sslmode must be",
    ] {
        assert!(
            found.iter().any(|fault| fault.starts_with(name)),
            "{name}: {found:?}"
        );
    }
    let split = faults("postgres://u:pass?geheim=1@h/db");
    assert!(
        !split.is_empty() && !split.join("").contains("geheim"),
        "{split:?}"
    );
}

#[test]
fn every_parameter_of_libpq_is_taken_or_refused_by_name() {
    // `PQconndefaults()` of PostgreSQL 18, with a value that libpq takes.
    let taken = "user=u&password=p&dbname=d&host=h&hostaddr=127.0.0.1&port=5432&\
        options=-c%20work_mem%3D1MB&application_name=a&fallback_application_name=b&\
        client_encoding=auto&connect_timeout=3&keepalives=1&keepalives_idle=30&\
        keepalives_interval=10&keepalives_count=3&tcp_user_timeout=1000&sslmode=require&\
        sslnegotiation=direct&sslcompression=0&sslcertmode=allow&sslsni=0&gssencmode=prefer&\
        ssl_min_protocol_version=TLSv1.2&ssl_max_protocol_version=TLSv1.3&\
        min_protocol_version=3.0&max_protocol_version=latest&channel_binding=require&\
        target_session_attrs=primary&load_balance_hosts=random";
    let config = config(&format!("postgres://?{taken}"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
    assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(1)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(config.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(
        config.get_target_session_attrs(),
        TargetSessionAttrs::ReadWrite
    );
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    for (name, _) in REFUSED {
        let found = faults(&format!("host=h {name}=x"));
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("{name} is not supported")),
            "{found:?}"
        );
        assert_eq!(faults(&format!("host=h {name}=''")), Vec::<String>::new());
    }
}

#[test]
fn what_the_gateway_cannot_honour_is_refused() {
    for wrong in [
        "target_session_attrs=standby",
        "target_session_attrs=read-only",
        "target_session_attrs=prefer-standby",
        "gssencmode=require",
        "sslmode=allow",
        "sslcert=/c.pem",
        "sslkey=/k.pem",
        "sslpassword=x",
        "sslcertmode=require",
        "connect_timeout=0",
        "connect_timeout=soon",
        "client_encoding=LATIN1",
        "min_protocol_version=3.2",
        "sslmode=prefer sslrootcert=system",
        "sslnegotiation=direct",
        "sslmode=disable channel_binding=require",
        "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
        "hostaddr=127.0.0.1,127.0.0.2",
        "port=1,2",
        "ssl=false",
    ] {
        let found = faults(&format!("host=h {wrong}"));
        assert_eq!(found.len(), 1, "{wrong}: {found:?}");
    }
    assert_eq!(faults("postgres:///db").len(), 1, "no host");
}

#[test]
fn the_certificate_is_checked_as_the_mode_says() {
    let tls = |text: &str| connection(text).ok().unwrap().tls;
    for (words, verify) in [
        ("", Verify::Nothing),
        ("sslmode=prefer", Verify::Nothing),
        ("sslmode=require", Verify::Nothing),
        ("ssl=true", Verify::Nothing),
        ("sslmode=require sslrootcert=/r", Verify::Chain),
        ("sslmode=verify-ca", Verify::Chain),
        ("sslmode=verify-full", Verify::Full),
        ("sslrootcert=system", Verify::Full),
    ] {
        let tls = tls(&format!("host=h {words}"));
        assert_eq!((tls.used, tls.verify), (true, verify), "{words}");
    }
    assert!(!tls("host=h sslmode=disable").used);
    assert!(!tls("host=/run/postgresql sslmode=verify-full").used);
    // If only `hostaddr` is given, the certificate is checked against that address.
    let hosts = config("hostaddr=127.0.0.1").get_hosts().to_vec();
    assert_eq!(hosts, [Host::Tcp("127.0.0.1".to_owned())]);
}

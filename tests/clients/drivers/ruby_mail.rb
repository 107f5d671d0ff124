# ruby-mail over one Net::SMTP connection.
require 'json'
require 'mail'
require 'net/smtp'

asked = JSON.parse($stdin.read)
given = asked['settings']
smtp = Net::SMTP.new(given['host'], given['port'])
context = OpenSSL::SSL::SSLContext.new
context.set_params(ca_file: given['ca']) if given['ca']
case given['tls']
when 'implicit' then smtp.enable_tls(context)
when 'starttls' then smtp.enable_starttls(context)
else smtp.disable_starttls
end
login = given['user'] ? [given['user'], given['password'], :plain] : []

told = smtp.start('client.example.com', *login) do |session|
  asked['mails'].map do |mail|
    message = Mail.new(charset: 'UTF-8')
    message.from, message.to, message.cc, message.bcc = mail['sender'], mail['to'], mail['cc'], mail['bcc']
    message.subject = mail['subject']
    message.text_part = Mail::Part.new(content_type: 'text/plain; charset=UTF-8', body: mail['text'])
    message.attachments[mail['attachment']['name']] = mail['attachment']['base64'].unpack1('m') if mail['attachment']
    message.delivery_method :smtp_connection, connection: session
    begin
      message.deliver!
      { ok: true }
    rescue Net::ProtocolError => e
      # Net::SMTP leaves the transaction open where a recipient was refused.
      session.rset
      { ok: false, error: e.message }
    end
  end
end
puts JSON.generate(told)
